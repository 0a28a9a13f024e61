"""Samples that move CKA by more than its standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_cka.compare.influence import BatchRecord, cka_of_sums, without_each
from lightning_cka.runtime.collectives import all_gather, all_reduce_sum
from lightning_cka.runtime.devices import to_device

MIN_CHANGE = 1e-3
"""Smallest change of CKA that counts. Smaller ones do not matter, however small the standard error is."""

_TRIMMED = 0.05
"""Part of the samples, those of the largest changes, that is left out of the standard error."""

_MAX_TRIMMED = 128
"""Largest number of samples that are left out of the standard error."""

_MAX_LISTED = 16
"""Largest number of samples that are listed for a pair."""


def influential_samples(
    records: Sequence[BatchRecord], sums: tuple[Tensor, Tensor, Tensor], *, distributed: bool
) -> list[Mapping[int, float]]:
    """Return for each pair of layers the samples without which CKA changes most.

    The changes are in units of the standard error of CKA, which follows from the changes themselves by the jackknife
    over samples (Efron and Stein 1981, https://doi.org/10.1214/aos/1176345462). The largest 5 percent of them are left
    out: with an outlier in it, the standard error would hide the outlier.

    Args:
        records: Records of this process's batches.
        sums: <K, L>, <K, K> and <L, L> of the P pairs, ``(P,)``, summed over all batches of all processes.
        distributed: Whether several processes share the batches. Then all of them must call this.

    Returns:
        For each pair the ratio by number of the sample, the largest first, at most 16. A ratio is infinite if too
        little remains without the sample. Changes below 0.001 are left out.
    """
    value = cka_of_sums(sums)
    changes = [(without_each(record, sums) - value[:, None]).abs() for record in records]
    numbers = torch.tensor([number for record in records for number in record.samples], device="cpu")
    # Each process sends its largest changes and their samples. -1 fills empty places.
    empty = value.new_full((2, len(value), _MAX_TRIMMED), -1.0)
    change = torch.cat([empty[0], *changes], 1).nan_to_num(torch.inf)
    samples = torch.cat([empty[1, 0], to_device(numbers, value.device).to(value)]).expand_as(change)
    largest = _largest(torch.stack([change, samples]))
    own = change[:, _MAX_TRIMMED:]
    finite = own.where(own.isfinite(), torch.zeros_like(own))
    totals = torch.stack([finite.square().sum(1), torch.full_like(value, float(own.shape[1]))])
    squares, count = all_reduce_sum(totals, distributed=distributed)
    largest = _largest(torch.cat(all_gather(largest, distributed=distributed), 2))
    errors = _trimmed_errors(largest[0], squares, count)
    ratios = largest[0] / errors[:, None]
    is_listed = (largest[0] >= MIN_CHANGE) & value.isfinite()[:, None] & ~ratios.isnan()
    return [
        {int(sample): ratio for sample, ratio, listed in zip(*columns, strict=True) if listed}
        for columns in zip(*(part[:, :_MAX_LISTED].tolist() for part in (largest[1], ratios, is_listed)), strict=True)
    ]


def _largest(changes: Tensor) -> Tensor:
    """Return the columns of the largest changes of ``(2, P, m)``, sorted."""
    values, places = changes[0].topk(_MAX_TRIMMED, dim=1)
    return torch.stack([values, changes[1].gather(1, places)])


def _trimmed_errors(largest: Tensor, squares: Tensor, count: Tensor) -> Tensor:
    """Return the standard errors ``(P,)`` without the largest changes.

    Args:
        largest: The largest changes, sorted, ``(P, m)``.
        squares: Sum of the squares of all finite changes, ``(P,)``.
        count: Number of samples, ``(P,)``.
    """
    number = (count * _TRIMMED).ceil().clamp(max=_MAX_TRIMMED)
    place = torch.arange(largest.shape[1], device=largest.device)
    is_trimmed = (place < number[:, None]) & largest.isfinite() & (largest >= 0)
    trimmed = largest.where(is_trimmed, torch.zeros_like(largest)).square().sum(1)
    rest = squares - trimmed
    # A difference of equal sums can be a negative rounding error.
    return (rest.where(rest > 0, torch.zeros_like(rest)) * count / (count - number)).sqrt()
