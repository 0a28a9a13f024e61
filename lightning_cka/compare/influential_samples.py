"""Samples that move CKA by more than its standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.influence import BatchRecord, JoinedRecords, cka_of_sums, joined_records, without_each
from lightning_cka.runtime.collectives import all_gather, all_reduce_sum

MIN_CHANGE = 1e-3
"""Smallest change of CKA that counts. Smaller ones do not matter, however small the standard error is."""

_TRIMMED = 0.05
"""Part of the samples, those of the largest changes, that is left out of the standard error."""

_MAX_TRIMMED = 128
"""Largest number of samples that are left out of the standard error."""

_TIED = 1e-6
"""Relative difference up to which two changes are equal but for rounding errors."""

_MAX_LISTED = 32
"""Largest number of samples that are listed for a pair."""


class Influence(NamedTuple):
    """The change of CKA without one sample, in units of its standard error, which is estimated in two ways."""

    ratio: float
    """In units of the standard error without the largest 5 percent of the changes."""
    to_other_batches: float
    """In units of the standard error that the samples of the other batches give: a far sample increases the changes
    without its neighbours, but not those of other batches. With a single batch, it is `ratio`."""
    batch: int = -1
    """Number of the first sample of its batch, which is the same for all samples of the batch."""


# What is known of a sample, one row each.
_CHANGE, _SAMPLE, _BATCH, _BATCH_SQUARES, _BATCH_SIZE = range(5)
"""The change of CKA; the numbers of the sample and of its batch's first sample; the batch's sum of squared changes; and
its number of samples."""


def influential_samples(
    records: Sequence[BatchRecord], sums: tuple[Tensor, Tensor, Tensor], *, distributed: bool
) -> list[Mapping[int, Influence]]:
    """Return for each pair of layers the samples without which CKA changes most.

    The changes are in units of the standard error of CKA, which follows from the changes themselves by the jackknife
    over samples (Efron and Stein 1981, https://doi.org/10.1214/aos/1176345462). The largest 5 percent of them are left
    out: with an outlier in it, the standard error would hide the outlier.

    Args:
        records: Records of this process's batches.
        sums: <K, L>, <K, K> and <L, L> of the P pairs, ``(P,)``, summed over all batches of all processes.
        distributed: Whether several processes share the batches. Then all of them must call this.

    Returns:
        For each pair the influences by number of the sample, that of the largest change first, at most 32. A ratio is
        infinite if too little remains without the sample. Changes below 0.001 are left out.
    """
    value = cka_of_sums(sums)
    # Each process sends its largest changes and their samples. -1 fills empty places.
    empty = value.new_full((5, len(value), _MAX_TRIMMED), -1.0)
    samples = torch.cat([empty, *(_samples_of(record, sums, value) for record in joined_records(records))], 2)
    own = samples[_CHANGE, :, _MAX_TRIMMED:]
    totals = torch.stack([_sum_of_squares(own), torch.full_like(value, float(own.shape[1]))])
    squares, count = all_reduce_sum(totals, distributed=distributed)
    largest = _largest(torch.cat(all_gather(_largest(samples), distributed=distributed), 2))
    trimmed = _is_trimmed(largest[_CHANGE], count)
    listed = largest[:, :, :_MAX_LISTED]
    ratios = listed[_CHANGE] / _trimmed_errors(largest, trimmed, squares, count)
    to_others = listed[_CHANGE] / _errors_of_other_batches(listed, largest, trimmed, squares, count)
    to_others = ratios.where(listed[_BATCH_SIZE] == count[:, None], to_others)
    is_listed = (listed[_CHANGE] >= MIN_CHANGE) & value.isfinite()[:, None] & ~ratios.isnan()
    columns = (listed[_SAMPLE], ratios, to_others, listed[_BATCH], is_listed)
    return [
        {
            int(sample): Influence(ratio, to_other_batches, int(batch))
            for sample, ratio, to_other_batches, batch, known in zip(*pair, strict=True)
            if known
        }
        for pair in zip(*(part.tolist() for part in columns), strict=True)
    ]


def _samples_of(record: JoinedRecords, sums: tuple[Tensor, Tensor, Tensor], value: Tensor) -> Tensor:
    """Return what is known of the m samples of some batches, ``(5, P, m)``."""
    change = (without_each(record, sums) - value[:, None]).abs().nan_to_num(torch.inf)
    sizes, batches = record.sizes, record.batches
    squares = change.new_zeros(len(change), len(sizes)).index_add_(1, batches, _finite(change).square())
    first = record.samples[(sizes.cumsum(0) - sizes).to(torch.int64)]
    columns = (record.samples, first[batches], squares[:, batches], sizes[batches])
    return torch.stack([change, *(each.expand_as(change) for each in columns)])


def _finite(changes: Tensor) -> Tensor:
    """Replace infinite changes by 0."""
    return changes.where(changes.isfinite(), torch.zeros_like(changes))


def _sum_of_squares(changes: Tensor) -> Tensor:
    return _finite(changes).square().sum(1)


def _largest(samples: Tensor) -> Tensor:
    """Return the columns of the largest changes of ``(5, P, m)``, sorted."""
    places = samples[_CHANGE].topk(_MAX_TRIMMED, dim=1).indices
    return samples.gather(2, places.expand(len(samples), -1, -1))


def _is_trimmed(largest: Tensor, count: Tensor) -> Tensor:
    """Return which of the largest changes ``(P, m)`` of ``count`` are left out of standard errors."""
    number = (count * _TRIMMED).ceil().clamp(1, _MAX_TRIMMED)
    last = largest.gather(1, number[:, None].to(torch.int64) - 1)
    # The samples of a batch of 4 have the same change: that without their batch.
    return (largest >= last * (1 - _TIED)) & (largest >= 0)


def _trimmed_errors(largest: Tensor, trimmed: Tensor, squares: Tensor, count: Tensor) -> Tensor:
    """Return the standard errors ``(P, 1)`` without the trimmed changes.

    Args:
        largest: The samples of the largest changes, sorted, ``(5, P, m)``.
        trimmed: Which of them are left out, ``(P, m)``.
        squares: Sum of the squares of all finite changes, ``(P,)``.
        count: Number of samples, ``(P,)``.
    """
    changes = largest[_CHANGE]
    rest = squares - _sum_of_squares(changes.where(trimmed, torch.zeros_like(changes)))
    return _error(rest, count - trimmed.sum(1), count)[:, None]


def _errors_of_other_batches(
    listed: Tensor, largest: Tensor, trimmed: Tensor, squares: Tensor, count: Tensor
) -> Tensor:
    """Return the standard errors from the other batches of each listed sample, without trimmed changes, ``(P, l)``.

    Args:
        listed: The samples, ``(5, P, l)``.
        largest: See `_trimmed_errors`.
        trimmed: See `_trimmed_errors`.
        squares: See `_trimmed_errors`.
        count: See `_trimmed_errors`.
    """
    elsewhere = trimmed[:, None, :] & (listed[_BATCH][:, :, None] != largest[_BATCH][:, None, :])
    cut = (_finite(largest[_CHANGE]).square()[:, None, :] * elsewhere).sum(2)
    rest = squares[:, None] - listed[_BATCH_SQUARES] - cut
    return _error(rest, count[:, None] - listed[_BATCH_SIZE] - elsewhere.sum(2), count[:, None])


def _error(squares: Tensor, number: Tensor, count: Tensor) -> Tensor:
    """Return the standard error from the sum of the squares of ``number`` of all ``count`` changes."""
    # A difference of equal sums can be a negative rounding error.
    return (squares.where(squares > 0, torch.zeros_like(squares)) * count / number).sqrt()
