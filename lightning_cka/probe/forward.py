"""How a batch is moved to the device and passed to the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import nn

from lightning_cka.probe.features import FeatureFn

ForwardFn = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class ForwardSettings:
    """How a batch is brought to a model.

    Attributes:
        forward_fn: called with the model and a batch; None: `default_forward`.
        feature_fn: see `lightning_cka.probe.features.to_features`.
        transfer: moves a batch to the device, and whatever else happens to it there; None: only moves it.
        context: around each forward pass, such as a precision plugin's.
        device: of the batches and Gram matrices.
    """

    device: torch.device
    forward_fn: ForwardFn | None = None
    feature_fn: FeatureFn = None
    transfer: Callable[[Any], Any] | None = None
    context: Callable[[], AbstractContextManager[Any]] = nullcontext

    def to_device(self, batch: Any) -> Any:
        """One batch, from whatever device it is on, as the model gets it."""
        return self.transfer(batch) if self.transfer else move_data_to_device(batch, self.device)

    def forward(self, model: nn.Module, batch: Any) -> None:
        """Show a batch that was brought to the model."""
        with self.context():
            (self.forward_fn or default_forward)(model, batch)


def default_forward(model: nn.Module, batch: Any) -> Any:
    """Call the model on a batch, or on its first element if it is a tuple or list.

    A mapping is spread over the parameters that ``forward`` names, or passed whole where it names none.
    """
    if isinstance(batch, list | tuple):
        batch = batch[0]
    if not isinstance(batch, Mapping):
        return model(batch)
    parameters = inspect.signature(getattr(model, "_orig_mod", model).forward).parameters
    named = {key: value for key, value in batch.items() if key in parameters}
    if not named and any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        named = dict(batch)
    return model(**named) if named else model(batch)
