"""`sample_maps`: where the samples of one probe batch lie in a layer, at one or several moments of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lightning_cka.compare.bank_series import (
    BankSource,
    check_same_layers_and_probe_set,
    chosen_batch,
    chosen_moments,
    moment_names,
    moment_words,
    sources_of_run,
)
from lightning_cka.compare.sample_marks import SampleMarks
from lightning_cka.hsic.classical_mds import classical_mds, procrustes_rotation
from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.hsic.packed import PackedGrams, select_layers, unpack, widened
from lightning_cka.hsic.subset import select_samples, usable_places
from lightning_cka.probe.bank import GramBank, open_bank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.bank_selection import bank_of_layers
from lightning_cka.probe.layers import Layers
from lightning_cka.probe.sample_selection import Exclude, SampleSelection

NO_VARIANCE = "all samples are equal"
TOO_FEW = f"fewer than {MIN_SAMPLES} samples are usable: the others are nan, infinite or missing"
LOST = "a sample that is left out is so far away that only rounding errors of the others remain"

_AXES = 2


@dataclass(frozen=True)
class SampleMap:
    """Where m samples lie in one layer: their coordinates on two axes, by classical MDS.

    Attributes:
        layer: Name of the layer.
        moment: Name of the moment of training.
        samples: Numbers of the samples.
        coordinates: ``(m, 2)`` float64. The unit is the root mean square distance of the samples from their mean.
        shares: Part of the layer's variance that each axis shows.
        marked: Those of the samples that are marked.
        left_out: Numbers of the samples that are not usable, such as those with ``nan``.
        problem: Why there are no coordinates; empty if there are.
    """

    layer: str
    moment: str
    samples: tuple[int, ...]
    coordinates: Tensor
    shares: tuple[float, float]
    marked: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class SampleMaps:
    """Where the samples of one probe batch lie in several layers, at several moments.

    Attributes:
        by_layer: The maps of each layer, in order of time.
        elsewhere: Marked samples that are in other batches.
        excluded: Samples that the user leaves out.
        batch: Index of the batch.
        sample_kind: What the sample numbers are.
        model_name: Class of the model.
    """

    by_layer: dict[str, list[SampleMap]]
    elsewhere: list[int]
    excluded: list[int]
    batch: int
    sample_kind: str
    model_name: str

    @property
    def maps(self) -> list[SampleMap]:
        """Return the maps of all layers: layer by layer, in order of time."""
        return [each for row in self.by_layer.values() for each in row]

    @property
    def num_moments(self) -> int:
        """Return the number of moments."""
        return max(map(len, self.by_layer.values()))

    @property
    def title(self) -> str:
        """Return the name of the model, with the moment if there is only one and it is known."""
        moments = {moment_words(each.moment) for each in self.maps}
        return ", ".join(filter(None, (self.model_name, *(moments if len(moments) == 1 else ()))))

    def at(self, place: int) -> SampleMaps:
        """Return the maps of one moment, given its place in order of time."""
        return replace(self, by_layer={name: [row[place]] for name, row in self.by_layer.items()})


def sample_maps(
    banks: BankSource | Sequence[BankSource],
    layers: Layers,
    *,
    batch: int | None = None,
    epochs: Sequence[int | str] | None = None,
    max_moments: int | None = None,
    marks: SampleMarks | None = None,
    exclude: Exclude = None,
) -> SampleMaps:
    """Place the samples of one probe batch on a plane for each layer, so that distances are kept as far as possible.

    The axes are the two directions with the largest variance at that moment. At each moment but the last, they are
    rotated or flipped in their plane to fit the next moment (orthogonal Procrustes), so that samples move, but axes
    do not change places.

    Args:
        banks: A bank or its file; or several of one network on one probe set, in order of time; or the folder that
            `CKAMonitor(save_banks=True)` wrote.
        layers: Patterns of layer names. None: all layers of the banks.
        batch: Index of the probe batch. None: that of the first marked or excluded sample; without any, the first.
        epochs: Epochs to take, in their order in ``banks``; "init" is the moment before training. None: all.
        max_moments: Largest number of moments that are taken if ``epochs`` is None: evenly spaced ones of more.
        marks: Marked samples.
        exclude: Numbers of samples to leave out.

    Raises:
        ValueError: There is no such batch or epoch, a pattern matches no layer, or layers or probe sets differ.
        FileNotFoundError: A file or the folder does not exist.
    """
    sources = _sources(banks)
    headers = [open_bank(source, batches=()) for source in sources]  # Everything but the Gram matrices.
    check_same_layers_and_probe_set(headers)
    moments = moment_names(headers)
    chosen = chosen_moments(headers, moments, epochs, max_moments)
    first = headers[0]
    names = bank_of_layers(first.empty(), layers, "layer").layers
    marked = {name: [] if marks is None else marks.of(name) for name in names}
    all_marked = [sample for own in marked.values() for sample in own]
    selection = SampleSelection(exclude, None, first.sample_kind)
    index = chosen_batch(headers, batch, [*all_marked, *selection.excluded])
    batches = [open_bank(sources[place], batches=[index]).batches[index] for place in chosen]
    return SampleMaps(
        {
            name: _aligned(
                [
                    _map(name, moments[place], _layer_of(each, first.layers.index(name)), selection, marked[name])
                    for place, each in zip(chosen, batches, strict=True)
                ]
            )
            for name in names
        },
        sorted(set(all_marked) - set(first.probe[index].samples)),
        selection.excluded,
        index,
        first.sample_kind,
        first.model_name,
    )


def _sources(banks: BankSource | Sequence[BankSource]) -> Sequence[BankSource]:
    is_one = isinstance(banks, GramBank) or (isinstance(banks, str | Path) and Path(banks).is_file())
    return [banks] if is_one else sources_of_run(banks, "a picture of samples", 1)  # type: ignore[list-item,arg-type]  # `is_one` tells.


def _layer_of(batch: BankBatch, row: int) -> BankBatch:
    return replace(batch, grams=select_layers(batch.grams, [row]))


def _map(layer: str, moment: str, batch: BankBatch, selection: SampleSelection, marked: Sequence[int]) -> SampleMap:
    """Return the map of the selected samples of a batch of one layer."""
    nothing = SampleMap(layer, moment, (), torch.empty(0, _AXES, dtype=torch.float64), (torch.nan, torch.nan))
    selected = selection.places(batch)
    places = usable_places(batch.grams, selected)
    left_out = tuple(batch.samples[place] for place in sorted(set(selected) - set(places)))
    if len(places) < MIN_SAMPLES:
        return replace(nothing, left_out=left_out, problem=TOO_FEW)
    grams = select_samples(batch.grams, places)
    if problem := _problem(grams):
        return replace(nothing, left_out=left_out, problem=problem)
    gram = unpack(widened(grams))[0]
    found = classical_mds(gram, _AXES)
    unit = (gram.trace() / len(places)).sqrt()
    first, second = found.shares.tolist()
    samples = tuple(batch.samples[place] for place in places)
    return SampleMap(
        layer,
        moment,
        samples,
        found.coordinates / unit,
        (first, second),
        tuple(sample for sample in marked if sample in samples),
        left_out,
    )


def _problem(grams: PackedGrams) -> str:
    """Return why the samples of one layer have no coordinates; empty if they have."""
    scale = float(grams.scales[0])
    if scale != scale:  # It is nan.
        return LOST
    return "" if scale else NO_VARIANCE


def _aligned(maps: Sequence[SampleMap]) -> list[SampleMap]:
    """Return the maps of one layer, each but the last one rotated or flipped to fit the next one."""
    aligned: list[SampleMap] = []
    target: SampleMap | None = None
    for each in reversed(maps):
        if not each.problem:
            each = each if target is None else _rotated(each, target)
            target = each
        aligned.insert(0, each)
    return aligned


def _rotated(moving: SampleMap, fixed: SampleMap) -> SampleMap:
    common = sorted(set(moving.samples) & set(fixed.samples))
    if len(common) < _AXES:
        return moving
    sides = [each.coordinates[[each.samples.index(sample) for sample in common]] for each in (moving, fixed)]
    rotation = procrustes_rotation(*(side - side.mean(0) for side in sides))
    coordinates = moving.coordinates @ rotation
    first, second = (rotation.square().T @ torch.tensor(moving.shares, dtype=torch.float64)).tolist()
    return replace(moving, coordinates=coordinates, shares=(first, second))
