"""Find a model's layers, and everything that is wrong with them, by showing it one probe batch."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.probe.dry_run_messages import join_problems, layer_problem
from lightning_cka.probe.features import is_of_tokens, token_mask
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.hooks import warn
from lightning_cka.probe.layers import LayerPlan, LayerSelector, match_layers, spread_evenly
from lightning_cka.probe.observe import Output, observe_one_sample_fewer, observe_outputs
from lightning_cka.probe.probe_set import ProbeSet
from lightning_cka.runtime.module_names import named_layers
from lightning_cka.runtime.restore import temporary_eval_mode
from lightning_cka.runtime.rng import isolated_rng


def dry_run(
    model: nn.Module,
    probe: ProbeSet,
    selectors: tuple[LayerSelector, ...] | None,
    forward_settings: ForwardSettings,
    *,
    argument: str = "layers",
) -> LayerPlan:
    """Show the model one probe batch, and the same with one sample fewer, to find its layers.

    The second batch tells which dimension of an output is the batch. Of the layers that a pattern or a class
    matches, those that cannot be compared are left out, if others remain.

    Args:
        model: left as it was found.
        probe: what to show.
        selectors: see `lightning_cka.probe.layers.check_layers`; None: the leaf modules that own parameters and
            give one row of features per sample, at most 64 of them.
        forward_settings: how.
        argument: the name of ``selectors`` to the user, for messages.

    Returns:
        The layers, by selector and then in execution order.

    Raises:
        ValueError: a selector that matches nothing, a layer chosen by name, or all that a selector matches, that
            does not run or whose output has no batch dimension, a model that cannot be shown the batch, or
            batches that are too small.
    """
    candidates = match_layers(model, selectors)
    with temporary_eval_mode(model), isolated_rng(probe.seed, forward_settings.device):
        batch = probe.first_batch()
        if batch.num_samples < MIN_SAMPLES:
            raise ValueError(
                f"probe batches need at least {MIN_SAMPLES} samples, but the first has {batch.num_samples}: use larger "
                "batches"
            )
        outputs = observe_outputs(model, batch, candidates, forward_settings)
        fewer = observe_one_sample_fewer(model, probe, batch.num_samples, candidates, forward_settings)
    found: dict[str, int] = {}
    problems: dict[str, tuple[str, str]] = {}
    order = {name: place for place, name in enumerate(outputs)}
    for name in sorted(candidates, key=lambda name: (candidates[name], order.get(name, -1))):
        dim = _batch_dim(outputs.get(name), fewer.get(name), batch.num_samples)
        if dim is None:
            module = named_layers(model)[name]
            problems[name] = layer_problem(name, module, outputs.get(name), fewer.get(name), batch.num_samples)
        else:
            found[name] = dim
    kept = {candidates[name] for name in found}
    refused = [name for name in problems if candidates[name] not in kept or name in (selectors or ())]
    if selectors is not None and refused:
        raise ValueError(
            f"cannot compare these {argument} on a batch of {batch.num_samples} samples: "
            f"{join_problems(problems[name] for name in refused)}. Choose other {argument}, or pass feature_fn= to turn an "
            "output into (n, features)"
        )
    if not found:
        raise ValueError(f"no layer of {type(model).__name__} can be compared: {join_problems(problems.values())}")
    if problems:
        which = f"the default {argument}" if selectors is None else f"{argument}="
        rank_zero_info(f"CKA leaves out of {which}: {join_problems(problems.values())}")
    if selectors is None:
        found = _thinned(found)
    if repeated := [name for name in found if outputs[name].calls > 1]:
        warn(f"layers that run several times in one forward are compared at their first call: {', '.join(repeated)}")
    mask = token_mask(batch.data, batch.num_samples) if forward_settings.feature_fn == "mean" else None
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


def _batch_dim(output: Output | None, fewer: Output | None, n: int) -> int | None:
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
