"""Find a model's layers, and everything that is wrong with them, by showing it one probe batch."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_cka.batches import token_mask
from lightning_cka.capture import LayerPlan, Showing, warn
from lightning_cka.functional import MIN_SAMPLES
from lightning_cka.layers import (
    LayerSelector,
    describe,
    is_of_tokens,
    match_layers,
    named_layers,
    read_tensor,
    shortened,
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

    The second batch tells which dimension of an output is the batch. Of the layers that a pattern or a class
    matches, those that cannot be compared are left out, if others remain.

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
        ValueError: a selector that matches nothing, a layer chosen by name, or all that a selector matches, that
            does not run or whose output has no batch dimension, a model that cannot be shown the batch, or
            batches that are too small.
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
        fewer = _observe_fewer(model, probe, batch.num_samples, candidates, showing)
    found: dict[str, int] = {}
    problems: dict[str, tuple[str, str]] = {}
    order = {name: place for place, name in enumerate(outputs)}
    for name in sorted(candidates, key=lambda name: (candidates[name], order.get(name, -1))):
        dim = _batch_dim(outputs.get(name), fewer.get(name), batch.num_samples)
        if dim is None:
            module = named_layers(model)[name]
            problems[name] = _problem(name, module, outputs.get(name), fewer.get(name), batch.num_samples)
        else:
            found[name] = dim
    kept = {candidates[name] for name in found}
    refused = [name for name in problems if candidates[name] not in kept or name in (selectors or ())]
    if selectors is not None and refused:
        raise ValueError(
            f"cannot compare these {argument} on a batch of {batch.num_samples} samples: "
            f"{_told(problems[name] for name in refused)}. Choose other {argument}, or pass feature_fn= to turn an "
            "output into (n, features)"
        )
    if not found:
        raise ValueError(f"no layer of {type(model).__name__} can be compared: {_told(problems.values())}")
    if problems:
        which = f"the default {argument}" if selectors is None else f"{argument}="
        rank_zero_info(f"CKA leaves out of {which}: {_told(problems.values())}")
    if selectors is None:
        found = _thinned(found)
    if repeated := [name for name in found if outputs[name].calls > 1]:
        warn(f"layers that run several times in one forward are compared at their first call: {', '.join(repeated)}")
    mask = token_mask(batch.data, batch.num_samples) if showing.feature_fn == "mean" else None
    if mask is not None and not mask.all():
        shapes = {name: _batch_first(outputs[name].shape or (), dim) for name, dim in found.items()}
        if padded := [name for name, shape in shapes.items() if len(shape) > 2 and not is_of_tokens(shape, mask)]:
            warn(
                f"feature_fn='mean' takes padding into the mean of layers whose output is not (n, T, d) with the "
                f"{tuple(mask.shape)} of attention_mask: {', '.join(padded)}"
            )
    return LayerPlan(found, batch.num_samples)


def _batch_first(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return (shape[dim], *shape[:dim], *shape[dim + 1 :])


def _problem(name: str, module: nn.Module, output: _Output | None, fewer: _Output | None, n: int) -> tuple[str, str]:
    """What cannot be compared, and why."""
    if output is None:
        return f"layer '{name}' ({type(module).__name__})", "did not run in forward"
    what = f"the output of layer '{name}' ({output.description})"
    if output.shape is None:
        return what, "has no floating-point tensor of one dimension or more"
    folded = _why_folded(output.shape, fewer.shape if fewer else None, n)
    return what, f"has no dimension with one entry per sample{folded}"


def _told(problems: Iterable[tuple[str, str]]) -> str:
    """Each reason once."""
    reasons: dict[str, list[str]] = {}
    for what, reason in problems:
        reasons.setdefault(reason, []).append(what)
    # Of several outputs, the verb is another one.
    return "; ".join(
        f"{shortened(what)} {re.sub('^has ', 'have ', reason) if len(what) > 1 else reason}"
        for reason, what in reasons.items()
    )


def _why_folded(shape: tuple[int, ...], fewer: tuple[int, ...] | None, n: int) -> str:
    """What the first dimension seems to be, if it depends on the samples."""
    if not fewer or fewer[0] >= shape[0]:
        return ""
    each, rest = divmod(shape[0], n)
    if rest or fewer[0] != each * (n - 1):
        return (
            f": its first has {shape[0]} for {n} samples and {fewer[0]} for {n - 1}, as if nodes or tokens of all "
            "samples were in a row. To pool them by sample, let forward_fn= keep the batch's index of each row's "
            "sample, for a feature_fn= that uses it"
        )
    return (
        f": its first has {each} for each, as if windows or nodes of all samples were in a row. If so, compare such "
        f"layers alone, with feature_fn=lambda output: output.unflatten(0, (-1, {each})).flatten(1)"
    )


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
            raise ValueError(_why_not_shown(model, batch.data, showing, error)) from error
    return outputs


def _why_not_shown(model: nn.Module, data: Any, showing: Showing, error: Exception) -> str:
    name = type(model).__name__
    cause = f"it raised {type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
    if showing.forward_fn is not None:
        return f"{name} could not be shown a probe batch with this forward_fn. The batch is a {describe(data)}; {cause}"
    defined_by = next(owner.__name__ for owner in type(model).__mro__ if "forward" in vars(owner))
    if defined_by in ("Module", "LightningModule"):
        sizes = {child: sum(p.numel() for p in module.parameters()) for child, module in model.named_children()}
        child = max(sizes, key=lambda child: sizes[child], default="net")
        first, inputs = (data[0], "batch[0]") if isinstance(data, list | tuple) and data else (data, "batch")
        call = f"module.{child}({'**' if isinstance(first, Mapping) else ''}{inputs})"
        return (
            f"{name} could not be shown a probe batch, since it defines no forward: pass forward_fn=, a function of "
            f"the module and the batch, such as forward_fn=lambda module, batch: {call}. The batch is a "
            f"{describe(data)}"
        )
    parameters = inspect.signature(model.forward).parameters.values()
    takes = ", ".join(str(p.replace(annotation=p.empty, default=p.empty)) for p in parameters)
    return (
        f"{name} could not be shown a probe batch: pass forward_fn=, a function of the module and the batch. Its "
        f"forward takes ({takes}), the batch is a {describe(data)}; {cause}"
    )


def _observe_fewer(
    model: nn.Module, probe: ProbeSet, num_samples: int, names: Iterable[str], showing: Showing
) -> dict[str, _Output]:
    try:
        return _observe(model, probe.first_batch(drop_last_sample=True), names, showing)
    except ValueError as error:
        warn(
            f"the {num_samples} samples of a batch are taken to lie along the first dimension of each output, since "
            f"one sample fewer failed: {error}"
        )
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


def _thinned(found: dict[str, int]) -> dict[str, int]:
    chosen = spread_evenly(list(found))
    if len(chosen) < len(found):
        rank_zero_info(
            f"CKA compares {len(chosen)} of {len(found)} layers, evenly spaced; choose others by name pattern or "
            "module class with layers="
        )
    return {name: found[name] for name in chosen}
