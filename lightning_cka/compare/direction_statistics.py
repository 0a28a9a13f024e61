"""CKA without the leading directions and within two groups, with the paired errors of the changes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.influence import cka_of_sums
from lightning_cka.hsic.jackknife import jackknife_error, sums_of_others

ENDS = 8
"""Number of samples that are kept at each end of a direction in each batch."""

# What one batch tells about a pair of layers: the first row of each number.
SIZE = 0
"""Number of samples."""
AGREEMENT = 1
"""Squared cosine of the two leading eigenvectors."""
SEPARATION = 2
"""Part of the variance that two groups explain: two rows, for the model's and the reference's direction."""
MEMBERS = 4
"""Number of samples in the smaller group, negative if it is at the lower end: two rows."""
WHOLE = 6
"""<K, L>, <K, K> and <L, L>: three rows."""
WITHOUT = 9
"""The same without the two directions; ``nan`` where they do not agree."""
WITHIN = 12
"""The same within the groups of the model's direction, and within those of the reference's: six rows."""
NEIGHBORS = 18
"""Products of the vectors of mutual kNN: three rows."""
RIDGE = 21
"""Products of the vectors of `Ridge`: three rows; ``nan`` where CKA is low, or stays high without the directions."""
NUM_ROWS = 24

_MIN_PART = 0.75
"""Part of the batches in which a direction or groups must be found."""


_ABOUT_HALF = 0.35
"""Part of the samples from which on a group is about as large as the other."""


class Change(NamedTuple):
    """CKA of two layers, and of a part of them."""

    cka: float
    """CKA of the samples that were looked at."""
    remaining: float
    """CKA without the directions, or within the groups, or another measure; ``nan`` if a quarter of the batches has
    none."""
    standard_error: float
    """Standard error of the difference, by the jackknife over batches; ``nan`` for one batch."""


class DirectionStatistics(NamedTuple):
    """How much CKA of two layers depends on their leading directions, and on groups along these."""

    agreement: float
    """Mean squared cosine of the two directions over the batches."""
    without_directions: Change
    separation: tuple[float, float]
    """Mean part of the variance along the model's and the reference's direction that two groups explain."""
    group_sizes: tuple[float, float]
    """Mean number of samples per batch in the smaller group of the model's and of the reference's direction."""
    within_groups: tuple[Change, Change]
    """CKA within the groups of the model's and of the reference's direction."""
    ends: tuple[tuple[int, ...], tuple[int, ...]]
    """Samples at the two ends of the model's direction, in the first batch."""
    members: tuple[tuple[int, ...], tuple[int, ...]]
    """Samples of the smaller group of the model's and of the reference's direction, from all batches."""
    neighbors: Change
    """Mutual kNN instead of CKA."""
    ridge: Change
    """`Ridge` instead of CKA."""


def statistics_of(numbers: Tensor, ends: Tensor) -> list[DirectionStatistics]:
    """Return the statistics of P pairs of layers.

    Args:
        numbers: What k batches tell, ``(k, NUM_ROWS, P)``.
        ends: Numbers of the samples at the lower and at the upper end, the farthest first, ``(k, 2, 2 * ENDS, P)``. The
            second dimension is the model's and the reference's direction.
    """
    count = numbers.shape[2]
    if numbers.numel() == 0:
        return [_UNKNOWN] * count
    whole = numbers[:, WHOLE : WHOLE + 3]
    parts = [numbers[:, row : row + 3] for row in (WITHOUT, WITHIN, WITHIN + 3, NEIGHBORS, RIDGE)]
    changes = _changes(whole.repeat(1, 1, len(parts)), torch.cat(parts, 2))
    without, *within, neighbors, ridge = (changes[start : start + count] for start in range(0, len(changes), count))
    means = numbers[:, AGREEMENT:MEMBERS].mean(0).T.tolist()
    members = numbers[:, MEMBERS : MEMBERS + 2].permute(2, 1, 0).tolist()
    sizes = numbers[:, SIZE, 0].tolist()
    samples = ends.permute(3, 1, 0, 2).tolist()
    return [
        DirectionStatistics(
            means[p][0],
            without[p],
            (means[p][1], means[p][2]),
            (_mean_size(members[p][0]), _mean_size(members[p][1])),
            (within[0][p], within[1][p]),
            (tuple(samples[p][0][0][:3]), tuple(samples[p][0][0][ENDS : ENDS + 3])),
            (_members(members[p][0], samples[p][0], sizes), _members(members[p][1], samples[p][1], sizes)),
            neighbors[p],
            ridge[p],
        )
        for p in range(count)
    ]


def _changes(whole: Tensor, part: Tensor) -> list[Change]:
    """Return the CKA of two sets of products ``(k, 3, P)``, over the batches in which both are defined."""
    defined = (part.isfinite() & whole.isfinite()).all(1, keepdim=True)
    weights = defined[:, 0].to(whole)
    zero = torch.zeros((), dtype=whole.dtype, device="cpu")
    whole, part = whole.where(defined, zero), part.where(defined, zero)
    values = [cka_of_sums(products.sum(0).unbind()) for products in (whole, part)]
    left_out = cka_of_sums(sums_of_others(whole).unbind(1)) - cka_of_sums(sums_of_others(part).unbind(1))
    error = jackknife_error(values[0] - values[1], left_out, weights)
    is_known = weights.sum(0) >= max(1, _MIN_PART * len(whole))
    found = torch.stack([*values, error]).where(is_known, zero + torch.nan)
    return [Change(*each) for each in found.T.tolist()]


def _mean_size(counts: list[float]) -> float:
    return sum(map(abs, counts)) / len(counts)


def _members(counts: list[float], ends: list[list[int]], sizes: list[float]) -> tuple[int, ...]:
    """Return up to `ENDS` samples of the smaller groups: the farthest of each batch first.

    Of two groups of about the same size, either can be the smaller one. Then the samples are those of the first batch.
    """
    if _mean_size(counts) > _ABOUT_HALF * sum(sizes) / len(sizes):
        counts, ends = counts[:1], ends[:1]
    ranked = []
    for count, numbers in zip(counts, ends, strict=True):
        if count == count:  # Not nan.
            own = numbers[:ENDS] if count < 0 else numbers[ENDS:]
            ranked += list(enumerate(own[: int(abs(count))]))
    return tuple(sample for _, sample in sorted(ranked)[:ENDS])


_NOTHING = Change(torch.nan, torch.nan, torch.nan)
_UNKNOWN = DirectionStatistics(
    torch.nan,
    _NOTHING,
    (torch.nan, torch.nan),
    (torch.nan, torch.nan),
    (_NOTHING, _NOTHING),
    ((), ()),
    ((), ()),
    _NOTHING,
    _NOTHING,
)
