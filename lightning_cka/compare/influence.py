"""How far single batches and single samples move a CKA value, told when the sums over all batches are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.diagnostics import LeaveOneOut
from lightning_cka.hsic.packed import PackedGrams, diagonals, select_layers
from lightning_cka.hsic.products import row_products
from lightning_cka.runtime.collectives import all_gather, all_reduce_sum
from lightning_cka.runtime.devices import to_device

_TELLING = 1e3
"""Times the precision of the Gram matrices: a smaller part of a sum cannot be told from rounding by subtraction."""


_ENTRIES = 2**19
"""Of the matrices that are in memory at a time."""


class Losses(NamedTuple):
    """By how much <K, L>, <K, K> and <L, L> of one batch fall without each of its samples, for P pairs of layers."""

    pairs: Tensor
    """(P, n)"""
    layers: Tensor
    """(P, n)"""
    references: Tensor
    """(P, n)"""


class BatchRecord(NamedTuple):
    """What one batch adds to the sums."""

    samples: tuple[int, ...]
    """The numbers of its n samples."""
    products: tuple[Tensor, Tensor, Tensor]
    """(L, R), (L,) and (R,); see `lightning_cka.hsic.products.hsic_products`."""
    losses: Losses
    eps: float
    """Of the Gram matrices' dtype."""


def losses(x: PackedGrams, y: PackedGrams, *, unbiased: bool) -> Losses:
    """What leaving out single samples takes from a batch's products, in O(n^2) per pair.

    Without sample i, the U-centered product <U, V> becomes T - 2 r_i (n-2)/(n-3), where r_i = sum_j U_ij V_ij: the
    rows of U and V sum to zero, so that centering them anew needs nothing else. The doubly centered one likewise.

    Args:
        x: P layers of one batch of n samples.
        y: their partners.
        unbiased: the estimator.
    """
    n = x.num_samples
    size = max(1, _ENTRIES // n**2)
    if len(x.halves) > size:
        # Whole matrices of all layers at once would take much memory.
        chunks = [slice(start, start + size) for start in range(0, len(x.halves), size)]
        parts = [losses(select_layers(x, c), select_layers(y, c), unbiased=unbiased) for c in chunks]
        return Losses(*(torch.cat(each) for each in zip(*parts, strict=True)))
    found: list[Tensor] = []
    for left, right in ((x, y), (x, x), (y, y)):
        if unbiased and found and left is right:
            rows = left.row_squares.to(found[0]) * left.scales.to(found[0])[:, None] ** 4
        else:
            rows = row_products(left, right, unbiased=unbiased)
        if unbiased:
            found.append(2 * rows * (n - 2) / (n - 3))
        else:
            own = diagonals(left).to(rows) * diagonals(right).to(rows)
            own = own * (left.scales.to(rows) * right.scales.to(rows)).square()[:, None]
            found.append(2 * rows - own + 2 * (rows - own) / (n - 1) - own / (n - 1) ** 2)
    return Losses(*found)


def leave_one_out(
    records: Sequence[BatchRecord],
    names: Sequence[str],
    sums: tuple[Tensor, Tensor, Tensor],
    *,
    distributed: bool,
) -> dict[str, LeaveOneOut]:
    """The sample of the whole probe set without which each pair's CKA changes most.

    Args:
        records: of this process's batches.
        names: of the P pairs.
        sums: ``(P,)`` of <K, L>, <K, K> and <L, L> over all batches of all processes.
        distributed: every process calls this.

    Returns:
        By name; without pairs whose CKA is ``nan``. ``without`` and ``change`` are ``nan`` where a sample holds so
        much of the sums that what the others hold cannot be told from rounding.
    """
    pairs, layers, references = sums
    value = pairs / (layers * references).sqrt()
    # A process without batches takes part with what any sample exceeds.
    largest = torch.stack([torch.full_like(value, -1.0), value, torch.full_like(value, -1.0)])
    for record in records:
        loss = record.losses
        left, right = layers[:, None] - loss.layers, references[:, None] - loss.references
        without = (pairs[:, None] - loss.pairs) / (left * right).sqrt()
        part = _TELLING * record.eps
        telling = (left > part * layers[:, None]) & (right > part * references[:, None])
        without = without.where(telling, torch.full_like(without, torch.nan))
        change, place = (without - value[:, None]).abs().max(1)
        sample = to_device(torch.tensor(record.samples, dtype=value.dtype, device="cpu"), value.device)[place]
        found = torch.stack([change, without.gather(1, place[:, None])[:, 0], sample])
        largest = _larger(largest, found)
    for other in all_gather(largest, distributed=distributed):
        largest = _larger(largest, other)
    defined = value.isfinite().tolist()
    changes, withouts, samples = largest.tolist()
    return {
        name: LeaveOneOut(int(samples[i]), withouts[i], changes[i])
        for i, name in enumerate(names)
        if defined[i] and samples[i] >= 0
    }


def _larger(one: Tensor, other: Tensor) -> Tensor:
    """Of two ``(3, P)``, the columns with the larger change, or the lower sample; ``nan`` is larger than any number."""
    a, b = (each[0].nan_to_num(torch.inf) for each in (one, other))
    return torch.where((a > b) | ((a == b) & (one[2] <= other[2])), one, other)


def mean_standard_error(
    records: Sequence[BatchRecord],
    cells: Tensor,
    matrix: Tensor,
    sums: tuple[Tensor, Tensor],
    effective_batches: Tensor,
    *,
    distributed: bool,
) -> float:
    """Standard error of the mean of some cells of the matrix, by the delta method over batches.

    The layers of one batch err together, so that it does not follow from the cells' own standard errors.

    Args:
        records: of this process's batches.
        cells: ``(L, R)`` bool.
        matrix: ``(L, R)``.
        sums: ``(L,)`` of <K, K> and ``(R,)`` of <L, L> over all batches of all processes.
        effective_batches: scalar.
        distributed: every process calls this.

    Returns:
        ``nan`` for fewer than 2 batches, or no cells.
    """
    layers, references = sums
    norms = (layers[:, None] * references).sqrt()
    total = matrix.new_zeros(2)
    for record in records:
        c, a, b = record.products
        influence = c / norms - matrix / 2 * ((a / layers)[:, None] + b / references)
        # Not `influence[cells]`, for whose size a GPU would be waited for.
        mean = influence.where(cells, torch.zeros_like(influence)).sum() / cells.sum()
        total = total + torch.stack([mean.square(), torch.ones_like(mean)])
    squares, count = all_reduce_sum(total, distributed=distributed)
    error = (effective_batches / (effective_batches - 1) * squares).sqrt()
    return float(error) if count > 1 else float("nan")
