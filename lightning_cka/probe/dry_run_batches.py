"""Choose which samples a dry run shows to a model: a few of the first batch, or all of it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Collection
from dataclasses import replace

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_cka.probe.batch_part import part_of_batch, some_samples
from lightning_cka.probe.comparable_layers import check_outputs
from lightning_cka.probe.dry_run_outputs import DryRunOutputs, LayerOutput, record_outputs
from lightning_cka.probe.feature_sizes import have_equal_inputs
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet
from lightning_cka.probe.stream_probe import StreamProbe
from lightning_cka.runtime.module_names import named_layers
from lightning_cka.runtime.sharding import is_sharded

_ENOUGH = 12
"""Number of samples that show how most models lay out their rows, at a small part of the cost of a batch. A layer that
sorts its rows leaves half of them where they were in one of 924 cases."""


def show_few_samples(
    model: nn.Module,
    batch: ProbeBatch,
    names: Collection[str],
    forward_settings: ForwardSettings,
    *,
    lenient: Collection[str] = (),
) -> DryRunOutputs | None:
    """Show a model the first 12 samples of a batch, and 6 of them.

    Args:
        model: The model, in evaluation mode.
        batch: The first batch of the probe set.
        names: Names of the layers.
        forward_settings: How a batch is passed to the model.
        lenient: See `lightning_cka.probe.dry_run_outputs.OutputRecorder`.

    Returns:
        The outputs. None if the batch must be shown whole: it is small or cannot be cut, the model fails on a part of
        it, or an output does not have one row per sample, in order. Processes that share sharded weights must run the
        same forward passes, so they show a whole batch, too.
    """
    few = part_of_batch(batch, range(_ENOUGH)) if batch.num_samples > _ENOUGH and not is_sharded(model) else None
    part = few and part_of_batch(few, some_samples(_ENOUGH))
    if few is None or part is None:
        return None
    try:
        outputs = record_outputs(model, few, names, forward_settings, lenient=lenient)
        some = record_outputs(model, part, outputs, forward_settings, lenient=lenient, like=outputs)
    except ValueError:  # If the whole batch fails, too, that error is raised.
        _say_whole(model, f"it fails on {_ENOUGH} of them")
        return None
    seen = DryRunOutputs(_ENOUGH, outputs, {}, some, batch.num_samples, batch.block_size)
    _, problems = check_outputs(outputs, named_layers(model), seen, forward_settings.call)
    if any(outputs[name].shape for name in problems):
        _say_whole(model, f"{_ENOUGH} of them do not show where each layer's output has the samples")
        return None
    return seen


def _say_whole(model: nn.Module, reason: str) -> None:
    rank_zero_info(f"The dry run of CKA shows {type(model).__name__} all samples of the first batch, because {reason}")


def show_whole_batch(
    model: nn.Module,
    probe: ProbeSet,
    batch: ProbeBatch,
    names: Collection[str],
    forward_settings: ForwardSettings,
    *,
    lenient: Collection[str] = (),
) -> DryRunOutputs:
    """Show a model the first batch, the same without its last sample, and a few samples of it.

    Args:
        model: The model, in evaluation mode.
        probe: The probe set.
        batch: The first batch of the probe set.
        names: Names of the layers.
        forward_settings: How a batch is passed to the model.
        lenient: See `lightning_cka.probe.dry_run_outputs.OutputRecorder`.

    Raises:
        ValueError: The forward pass or the ``feature_fn`` failed.
    """
    n = batch.num_samples
    # The model may write to its inputs: the part is copied first.
    part = part_of_batch(batch, some_samples(n)) if n > 1 else None
    outputs = record_outputs(model, batch, names, forward_settings, lenient=lenient)
    if n == 1:
        warnings.warn(
            "the only sample of a batch is assumed to lie along the first dimension of each output: batches of two or "
            "more samples would show where it lies",
            stacklevel=4,
        )
        return DryRunOutputs(n, outputs, {}, {}, n, batch.block_size)
    fewer: dict[str, LayerOutput] = {}
    some: dict[str, LayerOutput] = {}
    try:
        without_last = probe.first_batch(drop_last_sample=True)
        fewer = record_outputs(model, without_last, outputs, forward_settings, lenient=lenient, like=outputs)
    except ValueError as error:
        warnings.warn(
            f"the {n} samples of a batch are assumed to lie along the first dimension of each output, since one sample "
            f"fewer failed: {error}",
            stacklevel=4,
        )
    if part is not None:
        with contextlib.suppress(ValueError):  # A model with a fixed batch size, as the warning above says.
            some = record_outputs(model, part, outputs, forward_settings, lenient=lenient, like=outputs)
    return DryRunOutputs(n, outputs, fewer, some, n, batch.block_size)


def show_parts(
    model: nn.Module,
    probe: ProbeSet,
    names: Collection[str],
    forward_settings: ForwardSettings,
    *,
    lenient: Collection[str] = (),
) -> list[dict[str, LayerOutput]]:
    """Show a model all batches of the first Gram block, if their inputs differ in shape, as padded ones do.

    Returns:
        The outputs without values, by batch; nothing if all inputs have the same shapes.

    Raises:
        ValueError: The forward pass or the ``feature_fn`` failed.
    """
    # Processes that share sharded weights must run the same forward passes, but may have different batches.
    if is_sharded(model) and isinstance(probe, StreamProbe) and probe.is_distributed:
        return []
    block = probe.first_block()
    if have_equal_inputs(block):
        return []
    passes = []
    for batch in block:
        outputs = record_outputs(model, batch, names, forward_settings, lenient=lenient)
        passes.append({name: replace(output, values=None) for name, output in outputs.items()})
    return passes
