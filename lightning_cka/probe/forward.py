"""`ForwardSettings`: how a batch is moved to the device and passed to the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import nn

from lightning_cka.probe.features import FeatureFn, check_feature_fn
from lightning_cka.probe.padding import MASKED
from lightning_cka.probe.probe_set import ProbeSet
from lightning_cka.probe.tokens import token_kind, tokens_per_sequence
from lightning_cka.runtime.module_names import unwrapped

ForwardFn = Callable[[nn.Module, Any], Any]
Call = Literal["first", "last", "mean"]


def check_call(call: str) -> None:
    """Check that a choice among several calls of a layer is known.

    Raises:
        ValueError: It is not.
    """
    if call not in get_args(Call):
        raise ValueError(f"call must be one of {', '.join(map(repr, get_args(Call)))}, but is {call!r}")


def check_forward_fn(forward_fn: object, argument: str = "forward_fn") -> None:
    """Check that a function that runs a model can be called.

    Raises:
        TypeError: It cannot.
    """
    if forward_fn is not None and not callable(forward_fn):
        kind = type(forward_fn).__name__
        raise TypeError(f"{argument} must be a function of a module and a batch, but is a {kind}: {forward_fn!r:.60}")


@dataclass(frozen=True)
class ForwardSettings:
    """How a batch is passed to a model, and how its layers' outputs are read.

    Attributes:
        device: Device of the batches and Gram matrices.
        forward_fn: Called with the model and a batch. None stands for `default_forward`.
        feature_fn: See `lightning_cka.probe.features.to_features`.
        transfer: Moves a batch to the device, and may convert it. None only moves it.
        context: Entered around each forward pass, such as the context of a precision plugin.
        call: Which call of a layer that runs several times in one forward pass is read: "first", "last" or "mean", the
            mean of the features over all calls.
        argument: The user's name of the argument that is for this model, for messages.
        is_shared: Whether ``forward_fn`` was given for another model.

    Raises:
        ValueError: ``feature_fn`` or ``call`` is not a known name.
        TypeError: ``forward_fn`` is no function.
    """

    device: torch.device
    forward_fn: ForwardFn | None = None
    feature_fn: FeatureFn = None
    transfer: Callable[[Any], Any] | None = None
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    call: Call = "first"
    argument: Literal["forward_fn", "reference_forward_fn"] = "forward_fn"
    is_shared: bool = False

    def __post_init__(self) -> None:
        """Check the arguments that are names and functions."""
        check_forward_fn(self.forward_fn, self.argument)
        check_feature_fn(self.feature_fn)
        check_call(self.call)

    def of_reference(self, forward_fn: ForwardFn | None) -> ForwardSettings:
        """Return the settings for a reference that is another module; None: it is shown batches as the model is."""
        shared = forward_fn is None
        return replace(
            self, forward_fn=forward_fn or self.forward_fn, argument="reference_forward_fn", is_shared=shared
        )

    @property
    def leaves_out_padding(self) -> bool:
        """Whether the feature function depends on which tokens are padding."""
        return self.feature_fn in MASKED or tokens_per_sequence(self.feature_fn) is not None

    def sample_kind(self, probe: ProbeSet) -> str:
        """Return what the numbers of samples in a bank are."""
        return token_kind(probe.sample_kind, self.feature_fn)

    @property
    def callers(self) -> list[object]:
        """Return the user's functions that call the model."""
        return [] if self.forward_fn is None else [self.forward_fn]

    def to_device(self, batch: Any) -> Any:
        """Move a batch to the device, as the model expects it."""
        return self.transfer(batch) if self.transfer else move_data_to_device(batch, self.device)

    def shown_part(self, batch: Any) -> Any:
        """Return the part of a batch that the model gets: without a ``forward_fn``, the first element of a sequence."""
        return batch[0] if self.forward_fn is None and isinstance(batch, list | tuple) and batch else batch

    def forward(self, model: nn.Module, batch: Any) -> None:
        """Pass a batch, which is already on the device, to the model."""
        with self.context():
            (self.forward_fn or default_forward)(model, batch)


def default_forward(model: nn.Module, batch: Any) -> Any:
    """Call the model on a batch, or on its first element if it is a tuple or a list.

    A mapping is passed as keyword arguments, as far as ``forward`` has such parameters. If it has none of them, the
    mapping is passed whole.
    """
    if isinstance(batch, list | tuple):
        batch = batch[0]
    if not isinstance(batch, Mapping):
        return model(batch)
    arguments = _keyword_arguments(model, batch)
    return model(**arguments) if arguments else model(batch)


def _keyword_arguments(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Select the entries that are parameters of ``forward``. If none are, ``**kwargs`` takes all entries."""
    parameters = inspect.signature(unwrapped(model).forward).parameters
    named = {key: value for key, value in batch.items() if key in parameters}
    if not named and any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(batch)
    return named
