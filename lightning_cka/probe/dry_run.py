"""Find the layers of a model that can be compared, by showing it one probe batch twice."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.probe.dry_run_messages import Problem, join_problems, layer_problem
from lightning_cka.probe.dry_run_outputs import LayerOutput, record_outputs, record_outputs_without_last_sample
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.layers import LayerPlan, LayerSelector, match_layers, spread_evenly
from lightning_cka.probe.padding import token_mask, warn_of_padded_layers
from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet
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
    """Show the model one probe batch, and the same batch without its last sample, to find its layers.

    The batch is the dimension of an output that has one entry fewer the second time. If a pattern or a class matches
    several layers, those that cannot be compared are left out.

    Args:
        model: The model. It is restored afterwards.
        probe: The probe set.
        selectors: See `lightning_cka.probe.layers.check_layers`. None takes the leaf modules that own parameters and
            give one row of features per sample, at most 64 of them.
        forward_settings: How a batch is passed to the model.
        argument: The user's name of the argument ``selectors``, for messages.

    Returns:
        The layers, ordered by selector and then by execution.

    Raises:
        ValueError: A selector matches nothing. A layer that is chosen by name, or each layer that a selector matches,
            does not run or has an output without a batch dimension. The model fails on the batch. The batch has fewer
            than 4 samples.
    """
    candidates = match_layers(model, selectors)
    with temporary_eval_mode(model), isolated_rng(probe.seed, forward_settings.device):
        batch = _first_batch(probe)
        n = batch.num_samples
        outputs = record_outputs(model, batch, candidates, forward_settings)
        fewer = record_outputs_without_last_sample(model, probe, n, candidates, forward_settings)
    names = _by_selector_and_execution(candidates, outputs)
    found = {name: _batch_dim(outputs.get(name), fewer.get(name), n) for name in names}
    batch_dims = {name: dim for name, dim in found.items() if dim is not None}
    modules = named_layers(model)
    problems = {
        name: layer_problem(name, modules[name], outputs.get(name), fewer.get(name), n)
        for name in names
        if name not in batch_dims
    }
    if selectors is None:
        _check_any_usable(batch_dims, problems, model)
    else:
        _check_selectors(selectors, candidates, batch_dims, problems, argument, n)
    _report_left_out(problems, f"the default {argument}" if selectors is None else f"{argument}=")
    if selectors is None:
        batch_dims = _thin_out(batch_dims)
    _warn_of_repeated_calls(batch_dims, outputs)
    if forward_settings.feature_fn == "mean":
        _warn_of_padding(batch, batch_dims, outputs)
    return LayerPlan(batch_dims, n, tuple(name for name in outputs if name in batch_dims))


def _first_batch(probe: ProbeSet) -> ProbeBatch:
    batch = probe.first_batch()
    if batch.num_samples < MIN_SAMPLES:
        raise ValueError(
            f"probe batches need at least {MIN_SAMPLES} samples, but the first has {batch.num_samples}: use larger "
            "batches"
        )
    return batch


def _by_selector_and_execution(candidates: Mapping[str, int], outputs: Mapping[str, LayerOutput]) -> list[str]:
    """Sort names by their selector, then layers that did not run, then by execution."""
    order = {name: position for position, name in enumerate(outputs)}
    return sorted(candidates, key=lambda name: (candidates[name], order.get(name, -1)))


def _batch_dim(output: LayerOutput | None, fewer: LayerOutput | None, n: int) -> int | None:
    """Return the first dimension of size n that has size n - 1 without the last sample."""
    if output is None or output.shape is None:
        return None
    if fewer is None or fewer.shape is None or len(fewer.shape) != len(output.shape):
        return 0 if output.shape[:1] == (n,) else None
    sizes = enumerate(zip(output.shape, fewer.shape, strict=True))
    return next((dim for dim, pair in sizes if pair == (n, n - 1)), None)


def _check_any_usable(usable: Collection[str], problems: Mapping[str, Problem], model: nn.Module) -> None:
    if not usable:
        raise ValueError(f"no layer of {type(model).__name__} can be compared: {join_problems(problems.values())}")


def _check_selectors(
    selectors: tuple[LayerSelector, ...],
    candidates: Mapping[str, int],
    usable: Collection[str],
    problems: Mapping[str, Problem],
    argument: str,
    n: int,
) -> None:
    """Raise if a layer that was chosen by name, or each layer that a selector matches, cannot be used."""
    satisfied = {candidates[name] for name in usable}
    errors = [problem for name, problem in problems.items() if candidates[name] not in satisfied or name in selectors]
    if errors:
        raise ValueError(
            f"cannot compare these {argument} on a batch of {n} samples: {join_problems(errors)}. Choose other "
            f"{argument}, or pass feature_fn= to turn an output into (n, features)"
        )


def _report_left_out(problems: Mapping[str, Problem], choice: str) -> None:
    if problems:
        rank_zero_info(f"CKA leaves out of {choice}: {join_problems(problems.values())}")


def _thin_out(batch_dims: dict[str, int]) -> dict[str, int]:
    chosen = spread_evenly(list(batch_dims))
    if len(chosen) < len(batch_dims):
        rank_zero_info(
            f"CKA compares {len(chosen)} of {len(batch_dims)} layers, evenly spaced; choose others by name pattern or "
            "module class with layers="
        )
    return {name: batch_dims[name] for name in chosen}


def _warn_of_repeated_calls(names: Collection[str], outputs: Mapping[str, LayerOutput]) -> None:
    if repeated := [name for name in names if outputs[name].calls > 1]:
        warnings.warn(
            f"layers that run several times in one forward are compared at their first call: {', '.join(repeated)}",
            stacklevel=3,
        )


def _warn_of_padding(batch: ProbeBatch, batch_dims: Mapping[str, int], outputs: Mapping[str, LayerOutput]) -> None:
    mask = token_mask(batch.data, batch.num_samples)
    if mask is not None:
        shapes = {name: _batch_first(outputs[name].shape or (), dim) for name, dim in batch_dims.items()}
        warn_of_padded_layers(shapes, mask)


def _batch_first(shape: tuple[int, ...], batch_dim: int) -> tuple[int, ...]:
    return (shape[batch_dim], *shape[:batch_dim], *shape[batch_dim + 1 :])
