"""Find a model's layers, and everything that is wrong with them, by showing it one probe batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_cka.capture import LayerPlan, Showing, warn
from lightning_cka.functional import MIN_SAMPLES
from lightning_cka.layers import (
    LayerSelector,
    describe,
    match_layers,
    named_layers,
    read_tensor,
    spread_evenly,
)
from lightning_cka.probe import ProbeBatch, ProbeSet
from lightning_cka.restore import left_as_found
from lightning_cka.rng import isolated_rng


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
                f"probe batches need at least {MIN_SAMPLES} samples, but the first has {batch.num_samples}: use larger "
                "batches"
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
            f"cannot compare these {argument} on a batch of {batch.num_samples} samples: {'; '.join(problems)}. "
            f"Choose other {argument}, or pass feature_fn= to turn an output into (n, features)"
        )
    if not found:
        raise ValueError(f"no layer of {type(model).__name__} can be compared: {'; '.join(problems)}")
    if selectors is None:
        found = _thinned(found, problems)
    if repeated := [name for name in found if outputs[name].calls > 1]:
        warn(f"layers that run several times in one forward are compared at their first call: {', '.join(repeated)}")
    return LayerPlan(found, batch.num_samples)


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
            showing.forward(model, showing.bring(batch.data))
        except _FeatureFnError:
            raise
        except Exception as error:
            takes = ", ".join(inspect.signature(model.forward).parameters)
            cause = (str(error).splitlines() or [""])[0][:300]
            raise ValueError(
                f"{type(model).__name__} could not be shown a probe batch: pass forward_fn=, a function of the module "
                f"and the batch. Its forward takes ({takes}), the batch is a {describe(batch.data)}; it raised "
                f"{type(error).__name__}: {cause}"
            ) from error
    return outputs


def _observe_fewer(model: nn.Module, probe: ProbeSet, names: Iterable[str], showing: Showing) -> dict[str, _Output]:
    try:
        return _observe(model, probe.first_batch(drop_last_sample=True), names, showing)
    except ValueError as error:
        warn(f"the batch is taken to be the first dimension of each output, since one sample fewer failed: {error}")
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
