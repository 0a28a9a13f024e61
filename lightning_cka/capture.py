"""Show the probe set to a model: hooks in, Gram matrices out."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn

from lightning_cka.bank import ShownBatch
from lightning_cka.batches import fingerprint, token_mask
from lightning_cka.functional import MIN_SAMPLES
from lightning_cka.grams import Workspace
from lightning_cka.layers import (
    FeatureFn,
    describe,
    named_layers,
    read_tensor,
    to_features,
)
from lightning_cka.lockstep import in_step
from lightning_cka.packed import GramStack, PackedGrams
from lightning_cka.probe import ProbeBatch, ProbeSet
from lightning_cka.restore import left_as_found
from lightning_cka.rng import isolated_rng, seed_rng

ForwardFn = Callable[[nn.Module, Any], Any]

Consumer = Callable[[ShownBatch], None]

Observer = Callable[[int, Tensor], None]
"""Called with a layer's row and its features ``(n, ...)``, inside the forward hook."""


@dataclass(frozen=True)
class Showing:
    """How a batch is brought to a model.

    Attributes:
        forward_fn: called with the model and a batch; None: `default_forward`.
        feature_fn: see `lightning_cka.layers.to_features`.
        transfer: moves a batch to the device, and whatever else happens to it there; None: only moves it.
        context: around each forward pass, such as a precision plugin's.
        device: of the batches and Gram matrices.
    """

    device: torch.device
    forward_fn: ForwardFn | None = None
    feature_fn: FeatureFn = None
    transfer: Callable[[Any], Any] | None = None
    context: Callable[[], AbstractContextManager[Any]] = nullcontext

    def bring(self, batch: Any) -> Any:
        """One batch, from whatever device it is on, as the model gets it."""
        return self.transfer(batch) if self.transfer else move_data_to_device(batch, self.device)

    def forward(self, model: nn.Module, batch: Any) -> None:
        """Show a batch that was brought to the model."""
        with self.context():
            (self.forward_fn or default_forward)(model, batch)


@dataclass(frozen=True)
class LayerPlan:
    """The layers that are looked at, as a dry run found them.

    Attributes:
        batch_dims: by layer name, in the order of the Gram matrices' rows: which dimension is the batch.
        num_samples: size of the probe batch that was shown.
    """

    batch_dims: dict[str, int]
    num_samples: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, in order."""
        return tuple(self.batch_dims)


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


def show(
    model: nn.Module,
    probe: ProbeSet,
    plan: LayerPlan,
    showing: Showing,
    consume: Consumer,
    *,
    rank: int = 0,
    world_size: int = 1,
    observe: Observer | None = None,
    sharded: bool = False,
) -> None:
    """Show this rank's share of the probe set to a model.

    Each activation is reduced to its Gram matrix inside the forward hook. A layer whose output cannot
    be read on some batch gets ``nan`` there, and a warning: one rank must not raise alone.

    Args:
        model: left as it was found, also on an error.
        probe: what to show.
        plan: the layers, as `dry_run` found them.
        showing: how.
        consume: called after each batch; its Gram matrices are overwritten by the next one.
        rank: of this process.
        world_size: number of processes that share the probe set.
        observe: sees the features too, before they are freed.
        sharded: processes share the weights, so that each must make as many forward passes as the others: surplus ones
            show what was shown before.
    """
    modules = named_layers(model)
    workspace = Workspace()
    last: ProbeBatch | None = None
    with ExitStack() as stack:
        stack.enter_context(left_as_found(model))
        stack.enter_context(isolated_rng(probe.seed, showing.device))
        found = stack.enter_context(closing(probe.batches(rank, world_size)))
        large = (batch for batch in found if batch.num_samples >= MIN_SAMPLES)
        for batch in in_step(large, showing.device) if sharded else large:
            if batch is None:
                last = last or probe.first_batch()
                showing.forward(model, showing.bring(last.data))
                continue
            last = batch
            seed_rng(probe.batch_seed(batch.index), showing.device)
            data = showing.bring(batch.data)
            inputs = fingerprint(data)  # Before a model writes to its inputs.
            mask = _token_mask(batch, data, probe.sample_kind) if showing.feature_fn == "mean" else None
            grams = _BatchGrams(batch.num_samples, plan, showing, workspace, observe, mask)
            with ExitStack() as hooks:
                for row, name in enumerate(plan.names):
                    hooks.enter_context(modules[name].register_forward_hook(grams.hook(row, name)))
                showing.forward(model, data)
            consume(ShownBatch(batch.index, grams.finish(), inputs, batch.samples))


def _token_mask(batch: ProbeBatch, data: Any, sample_kind: str) -> Tensor | None:
    """Which tokens of a batch are no padding, if it tells."""
    mask = token_mask(data, batch.num_samples)
    if mask is not None and not mask.any(1).all():
        told = zip(batch.samples, mask.any(1).tolist(), strict=True)
        names = ", ".join(str(sample) for sample, has_tokens in told if not has_tokens)
        warn(f"attention_mask leaves no token of samples ({sample_kind}) {names}: their mean is nan")
    return mask


class _BatchGrams:
    """Gram matrices of one batch, filled in as the hooks fire."""

    def __init__(
        self,
        num_samples: int,
        plan: LayerPlan,
        showing: Showing,
        workspace: Workspace,
        observe: Observer | None,
        mask: Tensor | None,
    ) -> None:
        self._observe = observe
        self._mask = mask
        self._n = num_samples
        self._plan = plan
        self._showing = showing
        self._missing = dict.fromkeys(plan.names)
        self._stack = GramStack(
            len(plan.names), num_samples, dtype=torch.float32, device=showing.device, workspace=workspace
        )

    def hook(self, row: int, name: str) -> Callable[[nn.Module, Any, Any], None]:
        """A forward hook that reduces the layer's first output to row ``row``."""
        batch_dim = self._plan.batch_dims[name]

        def reduce(_module: nn.Module, _args: Any, output: Any) -> None:
            if name not in self._missing:
                return  # A module that is called again: the first call counts.
            del self._missing[name]
            tensor = read_tensor(output, self._showing.feature_fn)
            if tensor is None or tensor.ndim <= batch_dim or tensor.shape[batch_dim] != self._n:
                warn(f"layer '{name}' gave {describe(output)} for a batch of {self._n} samples: its CKA is nan")
                self._stack.set_undefined(row)
                return
            features = to_features(tensor, batch_dim, self._showing.feature_fn, self._mask)
            if self._observe is not None:
                self._observe(row, features)
            self._stack.add(row, features)

        return reduce

    def finish(self) -> PackedGrams:
        """The Gram matrices; ``nan`` for layers that gave none."""
        for row, name in enumerate(self._plan.names):
            if name in self._missing:
                warn(f"layer '{name}' did not run on every probe batch: its CKA is nan")
                self._stack.set_undefined(row)
        return self._stack.packed()


def warn(message: str) -> None:
    """Warn on this process: what it saw, others may not have seen."""
    warnings.warn(message, stacklevel=2)
