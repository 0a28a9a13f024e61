"""Find the layers of a model that can be compared, by showing it some samples in batches of different sizes."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_cka.probe.adapters import AdapterSearch
from lightning_cka.probe.batching import check_first_batch
from lightning_cka.probe.choose_default import choose_default
from lightning_cka.probe.comparable_layers import check_outputs
from lightning_cka.probe.default_layers import containers
from lightning_cka.probe.dry_run_batches import show_few_samples, show_parts, show_whole_batch
from lightning_cka.probe.dry_run_messages import Problem, join_problems
from lightning_cka.probe.dry_run_outputs import DryRunOutputs, LayerOutput
from lightning_cka.probe.feature_sizes import bytes_per_sample, number_of_tokens, unequal_layers
from lightning_cka.probe.find_samples import find_samples
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.layers import LayerPlan, LayerSelector, is_default, match_layers, taken_away
from lightning_cka.probe.padding import token_mask, warn_of_padded_layers
from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet
from lightning_cka.probe.tokens import tokens_per_sequence
from lightning_cka.runtime.eval_mode import KeptState, temporary_eval_mode
from lightning_cka.runtime.lazy_modules import check_initialized
from lightning_cka.runtime.module_names import named_layers
from lightning_cka.runtime.rng import isolated_rng
from lightning_cka.runtime.text import shortened


def dry_run(
    model: nn.Module,
    probe: ProbeSet,
    selectors: tuple[LayerSelector, ...] | None,
    forward_settings: ForwardSettings,
    *,
    argument: str = "layers",
    whole_batch: bool = False,
) -> LayerPlan:
    """Show the model some samples, and a part of them, to find its layers.

    The batch is the dimension of an output that has fewer entries for fewer samples. 12 samples of the first probe
    batch, and 6 of them, show that for most models; else it is shown whole, and without its last sample.
    If a pattern or a class matches several layers, those that cannot be compared are left out.

    Args:
        model: The model. It is restored afterwards.
        probe: The probe set.
        selectors: See `lightning_cka.probe.layers.check_layers`. None takes repeated blocks, else the innermost modules
            with parameters, that give one row of features per sample, at most 64; see `default_layers` and
            `thin_out`.
        forward_settings: How a batch is passed to the model.
        argument: The user's name of the argument ``selectors``, for messages.
        whole_batch: Whether to show the whole first batch in any case. A model may split large batches.

    Returns:
        The layers, ordered by selector and then by execution.

    Raises:
        ValueError: A selector matches nothing. A layer that is chosen by name, or each layer that a selector matches,
            does not run, has an output without a batch dimension, or has its rows in another order than the samples.
            The model fails on the batch. The batch has fewer than 4 samples. The model has lazy modules without
            weights, or writes to attributes that are too large to be restored.
    """
    check_initialized(model)
    layers = named_layers(model)
    candidates = match_layers(model, selectors)
    by_default = is_default(selectors, layers)
    seen = _show_batches(model, probe, candidates, forward_settings, by_default=by_default, whole_batch=whole_batch)
    names = _by_selector_and_execution(candidates, seen.outputs)
    batch_dims, problems = check_outputs(names, layers, seen, forward_settings.call)
    if by_default:
        _check_any_usable(batch_dims, problems, model)
        batch_dims = choose_default(batch_dims, problems, layers, seen, taken_away(model, selectors))
    else:
        _check_selectors(selectors or (), candidates, batch_dims, problems, argument, seen.batch_size)
    idle = containers(candidates, layers) - seen.outputs.keys()  # Only what is inside them may run.
    _report_left_out([problems[name] for name in problems if name not in idle], argument, by_default=by_default)
    repeated = [name for name in batch_dims if seen.outputs[name].calls > 1]
    if forward_settings.call == "first":
        _warn_of_repeated_calls(repeated)
    shapes = {name: _batch_first(seen.outputs[name].shape or (), dim, seen) for name, dim in batch_dims.items()}
    has_tokens = tokens_per_sequence(forward_settings.feature_fn) is not None
    num_tokens = number_of_tokens(list(shapes.values()), seen.mask) if has_tokens else 0
    if seen.mask is not None:
        warn_of_padded_layers(shapes, seen.mask, str(forward_settings.feature_fn))
    order = tuple(name for name in seen.outputs if name in batch_dims)
    return LayerPlan(
        batch_dims,
        seen.block_size,
        frozenset(repeated),
        execution_order=order,
        written_parameters=tuple(seen.written_parameters),
        has_parts=seen.has_parts,
        sample_bytes=bytes_per_sample(seen.outputs, batch_dims, forward_settings.feature_fn),
        num_tokens=num_tokens,
        unequal=unequal_layers(seen.passes, batch_dims, forward_settings.feature_fn),
    )


def _show_batches(
    model: nn.Module,
    probe: ProbeSet,
    names: Collection[str],
    forward_settings: ForwardSettings,
    *,
    by_default: bool,
    whole_batch: bool,
) -> DryRunOutputs:
    """Show a model samples of the first batch, and some of these."""
    layers = named_layers(model)
    adapters = AdapterSearch(layers if by_default else {})
    lenient = containers(names, layers) if by_default else set()
    with (
        temporary_eval_mode(model, parameters=None, callers=forward_settings.callers) as kept,
        isolated_rng(probe.seed, forward_settings.device),
    ):
        check_initialized(model, kept.attributes.hidden_modules)
        find_samples(model, probe, names, forward_settings)
        batch = _first_batch(probe)
        with adapters.registered():
            seen = None
            if not whole_batch:
                seen = show_few_samples(model, batch, names, forward_settings, lenient=lenient)
            if seen is None:
                seen = show_whole_batch(model, probe, batch, names, forward_settings, lenient=lenient)
        has_parts = not batch.ends_block
        passes = show_parts(model, probe, seen.outputs, forward_settings, lenient=lenient) if has_parts else []
        written = kept.parameters.written()
        _check_restorable(model, kept, written.lost)
    mask = token_mask(batch.data, batch.num_samples) if forward_settings.leaves_out_padding else None
    return seen._replace(
        adapters=adapters.found, mask=mask, written_parameters=written.names, has_parts=has_parts, passes=passes
    )


def _first_batch(probe: ProbeSet) -> ProbeBatch:
    batch = probe.first_batch()
    check_first_batch(batch.block_size)
    return batch


def _check_restorable(model: nn.Module, kept: KeptState, lost: list[str]) -> None:
    """Raise if the forward passes changed what cannot be restored, and log what may have changed."""
    if lost:
        raise ValueError(
            f"the forward pass of {type(model).__name__} writes to the parameters {shortened(lost)}, which are too "
            "large to be copied. Training would differ from training without CKA. Compute the changed weights without "
            "writing to the parameters, or write to them only if self.training"
        )
    if changed := kept.attributes.changed_large_tensors():
        raise ValueError(
            f"the forward pass of {type(model).__name__} writes to {shortened(changed)}, which cannot be restored "
            "after the probe set: it is too large to be copied, or sparse. Training would differ from training "
            "without CKA. Make it a buffer, with register_buffer(name, tensor, persistent=False): buffers of any "
            "size are restored"
        )
    if advanced := kept.attributes.advanced_generators():
        raise ValueError(
            f"the forward pass of {type(model).__name__} reads the generator {shortened(advanced)}, which cannot be "
            "put back after the probe set. Training would differ from training without CKA. Count the calls in an "
            "attribute instead, as in `self.calls += 1`: attributes are restored"
        )
    if left_alone := kept.attributes.left_alone:
        rank_zero_info(f"CKA cannot restore after the probe set: {shortened(list(dict.fromkeys(left_alone)))}")


def _by_selector_and_execution(candidates: Mapping[str, int], outputs: Mapping[str, LayerOutput]) -> list[str]:
    """Sort names by their selector, then layers that did not run, then by execution."""
    order = {name: position for position, name in enumerate(outputs)}
    return sorted(candidates, key=lambda name: (candidates[name], order.get(name, -1)))


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


def _report_left_out(problems: Collection[Problem], argument: str, *, by_default: bool) -> None:
    if problems:
        choice = f"the default {argument}" if by_default else f"{argument}="
        rank_zero_info(f"CKA leaves out of {choice}: {join_problems(problems)}")


def _warn_of_repeated_calls(names: Collection[str]) -> None:
    if names:
        warnings.warn(
            f"layers that run several times in one forward are compared at their first call: {', '.join(names)}. "
            "call='last' takes their last call, call='mean' the mean of all calls",
            stacklevel=3,
        )


def _batch_first(shape: tuple[int, ...], batch_dim: int, seen: DryRunOutputs) -> tuple[int, ...]:
    """Return the shape that an output has for the whole batch, with the batch dimension first."""
    return (seen.batch_size, *shape[:batch_dim], *shape[batch_dim + 1 :])
