"""Show the probe set to a model: hooks in, Gram matrices out, the model left as it was found."""

from __future__ import annotations

import copy
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torchmetrics import Metric

from lightning_cka.functional import MIN_SAMPLES, PackedGrams, Workspace, empty_packed, lower_gram, pack
from lightning_cka.layers import (
    FeatureFn,
    LayerSelector,
    describe,
    match_layers,
    named_layers,
    read_tensor,
    spread_evenly,
    to_features,
)
from lightning_cka.probe import ProbeBatch, ProbeSet, fingerprint, isolated_rng, seed_rng

ForwardFn = Callable[[nn.Module, Any], Any]
Consumer = Callable[[int, PackedGrams, str], None]


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

    def forward(self, model: nn.Module, batch: Any) -> None:
        """Show one batch, on whatever device it is, to the model."""
        batch = self.transfer(batch) if self.transfer else move_data_to_device(batch, self.device)
        with self.context():
            (self.forward_fn or default_forward)(model, batch)


@dataclass(frozen=True)
class LayerPlan:
    """The layers that are looked at, as a dry run found them.

    Attributes:
        batch_dims: by layer name, in the order of the Gram matrices' rows: which dimension is the batch.
    """

    batch_dims: dict[str, int]

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
    parameters = inspect.signature(model.forward).parameters
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
) -> None:
    """Show this rank's share of the probe set to a model.

    Each activation is reduced to its Gram matrix inside the forward hook. A layer whose output cannot
    be read on some batch gets ``nan`` there, and a warning: one rank must not raise alone.

    Args:
        model: left as it was found, also on an error.
        probe: what to show.
        plan: the layers, as `dry_run` found them.
        showing: how.
        consume: called after each batch with its index, Gram matrices and fingerprint; the matrices are
            overwritten by the next batch.
        rank: of this process.
        world_size: number of processes that share the probe set.
    """
    modules = named_layers(model)
    workspace = Workspace()
    with left_as_found(model), isolated_rng(probe.seed, showing.device):
        for batch in probe.batches(rank, world_size):
            if batch.num_samples < MIN_SAMPLES:
                continue
            seed_rng(probe.batch_seed(batch.index), showing.device)
            grams = _BatchGrams(batch.num_samples, plan, showing, workspace)
            with ExitStack() as hooks:
                for row, name in enumerate(plan.names):
                    hooks.enter_context(modules[name].register_forward_hook(grams.hook(row, name)))
                showing.forward(model, batch.data)
            consume(batch.index, grams.finish(), fingerprint(batch.data))


class _BatchGrams:
    """Gram matrices of one batch, filled in as the hooks fire."""

    def __init__(self, num_samples: int, plan: LayerPlan, showing: Showing, workspace: Workspace) -> None:
        self._n = num_samples
        self._workspace = workspace
        self._plan = plan
        self._showing = showing
        self._missing = dict.fromkeys(plan.names)
        self._packed = empty_packed(
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
                _warn(f"layer '{name}' gave {describe(output)} for a batch of {self._n} samples: its CKA is nan")
                self._set_undefined(row)
                return
            features = to_features(tensor, batch_dim, self._showing.feature_fn)
            gram, scale = lower_gram(features, self._workspace)
            if gram.dtype == torch.float64:
                self._packed = PackedGrams(*(part.to(gram.dtype) for part in self._packed))
            pack(gram.to(self._packed.halves), scale, out=self._packed, layer=row)

        return reduce

    def finish(self) -> PackedGrams:
        """The Gram matrices; ``nan`` for layers that gave none."""
        for row, name in enumerate(self._plan.names):
            if name in self._missing:
                _warn(f"layer '{name}' did not run on every probe batch: its CKA is nan")
                self._set_undefined(row)
        return self._packed

    def _set_undefined(self, row: int) -> None:
        for part in self._packed:
            part[row] = torch.nan


def dry_run(
    model: nn.Module,
    probe: ProbeSet,
    selectors: tuple[LayerSelector, ...] | None,
    showing: Showing,
    *,
    argument: str = "layers",
) -> LayerPlan:
    """Show the model one probe batch, and the same with one sample fewer, to find its layers.

    The second batch tells which dimension of an output is the batch.

    Args:
        model: left as it was found.
        probe: what to show.
        selectors: see `lightning_cka.layers.check_layers`; None: the leaf modules that own parameters and
            give one row of features per sample, at most 64 of them.
        showing: how.
        argument: the name of ``selectors`` to the user, for messages.

    Returns:
        The layers, by selector and then in execution order.

    Raises:
        ValueError: a selector that matches nothing, a chosen layer that does not run or whose output
            has no batch dimension, a model that cannot be shown the batch, or batches that are too small.
    """
    candidates = match_layers(model, selectors)
    with left_as_found(model), isolated_rng(probe.seed, showing.device):
        batch = probe.first_batch()
        if batch.num_samples < MIN_SAMPLES:
            raise ValueError(
                f"probe batches need at least {MIN_SAMPLES} samples, but the first has {batch.num_samples}"
            )
        outputs = _observe(model, batch, candidates, showing)
        fewer = _observe_fewer(model, probe, candidates, showing)
    found: dict[str, int] = {}
    problems = []
    order = {name: place for place, name in enumerate(outputs)}
    for name in sorted(candidates, key=lambda name: (candidates[name], order.get(name, -1))):
        dim = _batch_dim(outputs.get(name), fewer.get(name), batch.num_samples)
        if dim is None:
            problems.append(_problem(name, named_layers(model)[name], outputs.get(name)))
        else:
            found[name] = dim
    if selectors is not None and problems:
        raise ValueError(
            f"cannot compare all of {argument} on a batch of {batch.num_samples} samples: {'; '.join(problems)}. "
            f"Choose other {argument}, or pass feature_fn= to turn an output into (n, features)"
        )
    if not found:
        raise ValueError(f"no layer of {type(model).__name__} can be compared: {'; '.join(problems)}")
    if selectors is None:
        found = _thinned(found, problems)
    if repeated := [name for name in found if outputs[name].calls > 1]:
        _warn(f"layers that run several times in one forward are compared at their first call: {', '.join(repeated)}")
    return LayerPlan(found)


def _problem(name: str, module: nn.Module, output: _Output | None) -> str:
    if output is None:
        return f"layer '{name}' ({type(module).__name__}) did not run in forward"
    what = "has no floating-point tensor" if output.shape is None else "has no dimension with one entry per sample"
    return f"the output of layer '{name}' ({output.description}) {what}"


@dataclass
class _Output:
    """What a layer gave in a dry run."""

    shape: tuple[int, ...] | None
    description: str
    calls: int = 1


def _observe(model: nn.Module, batch: ProbeBatch, names: Iterable[str], showing: Showing) -> dict[str, _Output]:
    """Outputs of the named layers that ran, in execution order."""
    outputs: dict[str, _Output] = {}
    modules = named_layers(model)

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def observe(_module: nn.Module, _args: Any, output: Any) -> None:
            if name in outputs:
                outputs[name].calls += 1
                return
            try:
                tensor = read_tensor(output, showing.feature_fn)
            except Exception as error:
                raise _FeatureFnError(
                    f"feature_fn failed on the output of layer '{name}', {describe(output)}"
                ) from error
            what = f"feature_fn gave {describe(tensor)}" if callable(showing.feature_fn) else describe(output)
            outputs[name] = _Output(None if tensor is None else tuple(tensor.shape), what)

        return observe

    with ExitStack() as hooks:
        for name in names:
            hooks.enter_context(modules[name].register_forward_hook(hook(name)))
        try:
            showing.forward(model, batch.data)
        except _FeatureFnError:
            raise
        except Exception as error:
            raise ValueError(
                f"{type(model).__name__} could not be shown a probe batch, {describe(batch.data)} "
                f"({type(error).__name__}: {error}); pass forward_fn=, a function of the model and a batch"
            ) from error
    return outputs


def _observe_fewer(model: nn.Module, probe: ProbeSet, names: Iterable[str], showing: Showing) -> dict[str, _Output]:
    try:
        return _observe(model, probe.first_batch(drop_last_sample=True), names, showing)
    except ValueError as error:
        _warn(f"the batch is taken to be the first dimension of each output, since one sample fewer failed: {error}")
        return {}


class _FeatureFnError(ValueError):
    """The user's ``feature_fn`` raised: nothing to blame on the model's ``forward``."""


def _batch_dim(output: _Output | None, fewer: _Output | None, n: int) -> int | None:
    """The first dimension that is n, and n - 1 for one sample fewer."""
    if output is None or output.shape is None:
        return None
    if fewer is None or fewer.shape is None or len(fewer.shape) != len(output.shape):
        return 0 if output.shape[:1] == (n,) else None
    sizes = enumerate(zip(output.shape, fewer.shape, strict=True))
    return next((dim for dim, pair in sizes if pair == (n, n - 1)), None)


def _thinned(found: dict[str, int], problems: list[str]) -> dict[str, int]:
    if problems:
        rank_zero_info(f"CKA leaves out of the default layers: {'; '.join(problems)}")
    chosen = spread_evenly(list(found))
    if len(chosen) < len(found):
        rank_zero_info(
            f"CKA compares {len(chosen)} of {len(found)} layers, evenly spaced; choose others by name pattern or "
            "module class with layers="
        )
    return {name: found[name] for name in chosen}


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, no compiled graphs; everything as before afterwards, also on an error."""
    modes = [(module, module.training) for module in model.modules()]
    with ExitStack() as stack:
        # Outside inference mode, so that what is kept can be used anywhere.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # Else nothing is compiled, and importing it takes seconds.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        for module, _ in modes:
            stack.callback(_restore_state, module, _state(module))
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, training in modes:
                module.training = training


def _state(module: nn.Module) -> dict[str, Any]:
    """What a forward pass in evaluation mode may write to: buffers, and the states of metrics."""
    buffers = dict(module._buffers)
    state = {"buffers": buffers, "copies": {name: b.clone() for name, b in buffers.items() if b is not None}}
    if isinstance(module, Metric):
        attributes = (*module.metric_state, "_update_count", "_computed", "_forward_cache")
        state["metric"] = copy.deepcopy({name: module.__dict__[name] for name in attributes})
    return state


def _restore_state(module: nn.Module, state: dict[str, Any]) -> None:
    module._buffers.clear()
    module._buffers.update(state["buffers"])
    module.__dict__.update(state.get("metric", {}))
    with torch.inference_mode():  # Else a buffer that was made in it could not be written to.
        for name, copied in state["copies"].items():
            # Always: not all kernels that write to a tensor count up its version.
            state["buffers"][name].copy_(copied)


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)
