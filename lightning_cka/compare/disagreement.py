"""Flags of layers about which CKA and the second opinions tell different stories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_cka.compare.diagnostics import LeaveOneOut
from lightning_cka.compare.direction_statistics import DirectionStatistics
from lightning_cka.compare.flags import Flag, Thresholds

_MIN_HIDDEN_CHANGE = 0.6
"""Smallest amount by which `Ridge` is lower than CKA for more to have changed than CKA says."""

_MIN_ERRORS = 2.0
"""Smallest such amount in units of its standard error."""

_MIN_UNREAL = 0.4
"""Part of the change that CKA shows, 1 - CKA, that mutual kNN must not show."""

_MIN_PART = 0.5
"""Part of the difference that must vanish without a sample for the sample to be the cause."""

_MIN_MEMBERS = 3.0
"""Smallest mean number of samples per batch in a group that moved."""

_MIN_SEPARATION = 0.8
"""Part of the variance along the leading direction that a group which moved explains."""


def disagreement_flags(
    statistics: Sequence[DirectionStatistics],
    names: Sequence[str | None],
    changes: Mapping[str, LeaveOneOut],
    thresholds: Thresholds,
) -> list[Flag]:
    """Return flags of layers that changed less, or more, than their CKA with the layer of the same name says.

    If mutual kNN is higher than CKA, the neighbourhoods of samples stayed, and CKA is low because of some samples that
    are far away. If the CKA of hat matrices is lower, all directions but a dominant one changed.

    Args:
        statistics: Statistics of each pair of layers.
        names: Names of the pairs. None: leave out the pair.
        changes: Change of CKA without one sample, by name.
        thresholds: Thresholds of the flags.
    """
    threshold = thresholds.disagreement
    if threshold is None:
        return []
    flags = []
    for name, found in zip(names, statistics, strict=True):
        if name is None:
            continue
        # A far sample makes the error of CKA large, so that the difference need not exceed it.
        excess = found.neighbors.remaining - found.neighbors.cka
        hidden = found.ridge.cka - found.ridge.remaining
        if excess > threshold and excess > _MIN_UNREAL * (1 - found.neighbors.cka):
            flags.append(Flag(name, "disagreement", excess, threshold, _moved(found, excess, changes.get(name))))
        elif hidden > _MIN_HIDDEN_CHANGE and not hidden <= _MIN_ERRORS * found.ridge.standard_error:
            flags.append(Flag(name, "disagreement", -hidden, threshold, (*found.ends[0], *found.ends[1])))
    return flags


def _moved(found: DirectionStatistics, excess: float, change: LeaveOneOut | None) -> tuple[int, ...]:
    """Return the samples that make CKA low: an outlier, a group that lies apart, or the farthest samples."""
    if change is not None and not change.change < _MIN_PART * excess:
        return (change.sample,)
    groups = [
        (separation, members)
        for separation, size, members in zip(found.separation, found.group_sizes, found.members, strict=True)
        if separation >= _MIN_SEPARATION and size >= _MIN_MEMBERS
    ]
    # The group of the side whose two groups explain more.
    return max(groups)[1] if groups else (*found.ends[0], *found.ends[1])
