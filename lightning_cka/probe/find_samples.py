"""Find out where in a stream's batches the samples lie, by taking one away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from lightning_cka.probe.dry_run_outputs import LayerOutput, record_outputs
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.probe_set import ProbeSet
from lightning_cka.probe.sample_places import SamplePlaces
from lightning_cka.probe.stream_probe import StreamProbe
from lightning_cka.runtime.sharding import is_sharded

_MAX_TRIALS = 8


def find_samples(model: nn.Module, probe: ProbeSet, names: Iterable[str], forward_settings: ForwardSettings) -> None:
    """Find out what the samples of a stream's batches are, where several tensors or lists have different lengths.

    Each candidate is shortened by one in the first batch. Samples are where the last layers' outputs, and most, then
    have one row fewer. Nothing is done for a probe set whose number of samples is known.

    Args:
        model: The model, in evaluation mode.
        probe: The probe set.
        names: Names of the layers.
        forward_settings: How a batch is passed to the model.
    """
    if not isinstance(probe, StreamProbe) or is_sharded(model):  # Processes with sharded weights must not differ.
        return
    candidates = probe.candidate_places()[:_MAX_TRIALS]
    if len(candidates) < 2:
        for place in candidates:
            probe.settle(place)
        return
    names = list(names)
    try:
        full = record_outputs(model, probe.first_batch(), names, forward_settings)
    except ValueError:
        return  # The dry run raises it.
    scores: dict[SamplePlaces, list[int]] = {}
    for place in candidates:
        probe.places = place
        scores[place] = _shorter(full, _outputs_without(model, probe, names, forward_settings), place.size)
        if len(scores[place]) == len(full):
            break
    if not any(scores.values()):  # A fixed batch size, perhaps: the samples are then in the first dimension.
        scores = {place: _of_first_size(full, place.size) for place in scores}
    # Points or tokens may be rows of the first layers, but samples are rows of the last.
    probe.settle(max(scores, key=lambda place: (max(scores[place], default=-1), len(scores[place]))))


def _outputs_without(
    model: nn.Module, probe: StreamProbe, names: list[str], forward_settings: ForwardSettings
) -> dict[str, LayerOutput]:
    try:
        return record_outputs(model, probe.first_batch(drop_last_sample=True), names, forward_settings)
    except ValueError:
        return {}


def _of_first_size(full: Mapping[str, LayerOutput], n: int) -> list[int]:
    """Return which outputs, in execution order, have a first dimension of n."""
    return [i for i, output in enumerate(full.values()) if (output.shape or (0,))[0] == n]


def _shorter(full: Mapping[str, LayerOutput], fewer: Mapping[str, LayerOutput], n: int) -> list[int]:
    """Return which outputs, in execution order, have a dimension of n that is n - 1 for one sample fewer."""
    pairs = enumerate(full.items())
    return [i for i, (name, output) in pairs if name in fewer and _is_shorter(output.shape, fewer[name].shape, n)]


def _is_shorter(shape: tuple[int, ...] | None, fewer: tuple[int, ...] | None, n: int) -> bool:
    return (n, n - 1) in zip(shape or (), fewer or (), strict=False)
