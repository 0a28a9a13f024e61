"""Flags of pairs of layers: a direction, a group of samples or a single sample that CKA depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lightning_cka.compare.direction_statistics import Change, DirectionStatistics
from lightning_cka.compare.flags import Flag, Thresholds
from lightning_cka.compare.influential_samples import Influence
from lightning_cka.compare.partners import Partners

_MIN_CKA = 0.5
"""Smallest CKA that looks high."""

_MIN_AGREEMENT = 0.7
"""Smallest squared cosine of the two leading directions for which CKA depends on one direction."""

_SEPARATED = 0.92
"""Part of the variance along one side's leading direction that two separate groups explain."""

_SEPARATED_IN_BOTH = 0.86
"""The same, if the groups lie apart in both sides' directions, which agree."""

_MIN_MEMBERS = 3.0
"""Smallest mean number of samples per batch in a group. Fewer samples are single outliers."""

_MIN_ERRORS = 2.0
"""Smallest change in units of its standard error."""

Influences = Mapping[str, Mapping[int, Influence]]
"""By layer and sample: the change of CKA without the sample, in standard errors."""


def direction_flags(
    statistics: Sequence[DirectionStatistics], pairs: Partners, layers: Sequence[str], thresholds: Thresholds
) -> list[Flag]:
    """Return flags of layers whose CKA depends on one direction, or on a group of samples that lies apart.

    Args:
        statistics: Statistics of each pair of layers.
        pairs: The pairs.
        layers: Names of the model's layers.
        thresholds: Thresholds of the flags.
    """
    flags: dict[tuple[str, str], Flag] = {}
    for row, found in zip(pairs.rows, statistics, strict=True):
        for flag in (_dominant_direction(layers[row], found, thresholds), _group(layers[row], found, thresholds)):
            if flag is not None:
                flags.setdefault((flag.reason, flag.layer), flag)
    return list(flags.values())


def _dominant_direction(layer: str, found: DirectionStatistics, thresholds: Thresholds) -> Flag | None:
    change, threshold = found.without_directions, thresholds.dominant_direction
    if threshold is None or not (change.cka >= _MIN_CKA and found.agreement >= _MIN_AGREEMENT):
        return None
    if not _exceeds(change.cka - change.remaining, threshold, change):
        return None
    return Flag(layer, "dominant_direction", change.remaining, threshold, (*found.ends[0], *found.ends[1]))


def _group(layer: str, found: DirectionStatistics, thresholds: Thresholds) -> Flag | None:
    threshold = thresholds.separated_group
    if threshold is None:
        return None
    in_both = min(found.separation) >= _SEPARATED_IN_BOTH and found.agreement >= _MIN_AGREEMENT
    for separation, size, change, members in zip(
        found.separation, found.group_sizes, found.within_groups, found.members, strict=True
    ):
        is_apart = separation >= (_SEPARATED_IN_BOTH if in_both else _SEPARATED) and size >= _MIN_MEMBERS
        if is_apart and _exceeds(abs(change.cka - change.remaining), threshold, change):
            return Flag(layer, "separated_group", change.remaining, threshold, members)
    return None


def _exceeds(size: float, threshold: float, change: Change) -> bool:
    """Whether a change is above the threshold, and above its error if that is known."""
    return size > threshold and not size <= _MIN_ERRORS * change.standard_error


def influence_flags(influences: Influences, thresholds: Thresholds, known: Sequence[Flag]) -> list[Flag]:
    """Return a flag for each layer whose CKA single samples change by many standard errors.

    Args:
        influences: See `Influences`.
        thresholds: Thresholds of the flags.
        known: Other flags of the model's layers. Samples that they name for a layer are left out, and so are their
            neighbours: a far sample increases the changes of CKA without any other sample of its batch.
    """
    threshold = thresholds.influence
    if threshold is None:
        return []
    flags = []
    for layer, own in influences.items():
        named = {sample for flag in known if flag.layer == layer for sample in flag.samples}
        batches = {own[sample].batch for sample in named if sample in own}
        if above := [
            sample
            for sample, each in own.items()
            if each.ratio > threshold and sample not in named and each.batch not in batches
        ]:
            flags.append(Flag(layer, "influence", own[above[0]].ratio, threshold, tuple(above[:3])))
    return flags


def influences_of_layers(
    influences: Sequence[Mapping[int, Influence]],
    pairs: Partners,
    layers: Sequence[str],
    reference_layers: Sequence[str],
) -> tuple[Influences, Influences]:
    """Return the influences by layer of the model and by layer of the reference.

    Args:
        influences: Influences of each pair by sample, the largest first.
        pairs: The pairs.
        layers: Names of the model's layers.
        reference_layers: Names of the reference's layers.
    """
    own: dict[str, Mapping[int, Influence]] = {}
    others: dict[str, Mapping[int, Influence]] = {}
    for row, column, ratios in zip(pairs.rows, pairs.columns, influences, strict=True):
        # In the few layers with two partners, the first one counts.
        own.setdefault(layers[row], ratios)
        others.setdefault(reference_layers[column], ratios)
    return own, others


def standard_errors_of_layers(errors: Tensor | None, pairs: Partners, layers: Sequence[str]) -> dict[str, float]:
    """Return for each layer of the model the largest standard error of its CKA with its partners.

    Args:
        errors: Standard errors of all pairs of layers, ``(L, R)``; ``nan`` counts as 0. None: unknown.
        pairs: The pairs.
        layers: Names of the model's layers.
    """
    found: dict[str, float] = {}
    if errors is not None:
        of_pairs = errors[pairs.rows, pairs.columns].nan_to_num(0.0).tolist()
        for row, error in zip(pairs.rows, of_pairs, strict=True):
            found[layers[row]] = max(error, found.get(layers[row], 0.0))
    return found
