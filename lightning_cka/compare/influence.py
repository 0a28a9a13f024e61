"""How much single samples change a CKA value.

This needs the sums over all batches. So each batch leaves a `BatchRecord`, which is evaluated at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.diagnostics import LeaveOneOut
from lightning_cka.hsic.packed import PackedGrams, diagonals, select_layers
from lightning_cka.hsic.precision import accumulator_dtype
from lightning_cka.hsic.products import row_products
from lightning_cka.runtime.collectives import all_gather
from lightning_cka.runtime.devices import to_device

_MIN_REMAINDER = 1e3
"""Smallest part of a sum that may remain without one sample, in units of the Gram matrices' precision. What remains is
found by subtraction; less than this is mostly rounding error."""

_MAX_ENTRIES = 2**19
"""Largest number of matrix entries that are unpacked at a time."""

_MAX_JOINED = 2**17
"""Largest number of values of pairs and samples that are looked at together."""


class Reductions(NamedTuple):
    """By how much the products of one batch decrease without each of its n samples, for P pairs of layers."""

    pairs: Tensor
    """Decrease of <K, L>, ``(P, n)``."""
    layers: Tensor
    """Decrease of <K, K>, ``(P, n)``."""
    references: Tensor
    """Decrease of <L, L>, ``(P, n)``."""


class BatchRecord(NamedTuple):
    """What the samples of one batch contribute to the sums."""

    samples: tuple[int, ...]
    """Numbers of the n samples."""
    reductions: Reductions
    eps: float
    """Machine epsilon of the Gram matrices' dtype."""


class JoinedRecords(NamedTuple):
    """The records of one or several batches, with m samples together."""

    samples: Tensor
    """Numbers of the samples, ``(m,)``, as floats."""
    batches: Tensor
    """Which of the batches each sample is in, ``(m,)``."""
    sizes: Tensor
    """Number of samples of each batch, as floats."""
    reductions: Reductions
    """Reductions without each sample, ``(P, m)`` each."""
    eps: float
    """Machine epsilon of the Gram matrices' dtype."""


def joined_records(records: Sequence[BatchRecord]) -> Iterator[JoinedRecords]:
    """Yield the records of several batches together: many samples need no more operations than few."""
    waiting: list[BatchRecord] = []
    count = 0
    for record in records:
        size = record.reductions.pairs.numel()
        if waiting and (count + size > _MAX_JOINED or record.eps != waiting[0].eps):
            yield _joined(waiting)
            waiting, count = [], 0
        waiting.append(record)
        count += size
    if waiting:
        yield _joined(waiting)


def _joined(records: Sequence[BatchRecord]) -> JoinedRecords:
    parts = zip(*(each.reductions for each in records), strict=True)
    reductions = Reductions(*(torch.cat(each, 1) for each in parts))
    device, dtype = reductions.pairs.device, reductions.pairs.dtype
    numbers = torch.tensor([n for each in records for n in each.samples], dtype=dtype, device="cpu")
    sizes = torch.tensor([len(each.samples) for each in records], device="cpu")
    batches = torch.arange(len(records), device="cpu").repeat_interleave(sizes)
    samples, batches, sizes = (to_device(part, device) for part in (numbers, batches, sizes.to(dtype)))
    return JoinedRecords(samples, batches, sizes, reductions, records[0].eps)


def leave_one_out_reductions(x: PackedGrams, y: PackedGrams, *, unbiased: bool) -> Reductions:
    """Return by how much a batch's products decrease without each sample, in O(n^2) for each pair of layers.

    Without sample i, the U-centered product T = <U, V> becomes T - 2 r_i (n-2)/(n-3) with r_i = sum_j U_ij V_ij. The
    rows of U and V sum to zero, so that centering the remaining samples again needs no other sums. The product of
    doubly centered matrices follows from r_i and the diagonals in the same way.

    Args:
        x: Gram matrices of P layers on one batch of n samples.
        y: Gram matrices of the P layers that they are compared with, on the same batch.
        unbiased: Whether the products are those of the unbiased HSIC.
    """
    n = x.num_samples
    size = max(1, _MAX_ENTRIES // n**2)
    if len(x.halves) > size:
        # Unpacking the matrices of all layers at once would take much memory.
        chunks = [slice(start, start + size) for start in range(0, len(x.halves), size)]
        parts = [leave_one_out_reductions(select_layers(x, c), select_layers(y, c), unbiased=unbiased) for c in chunks]
        return Reductions(*(torch.cat(each) for each in zip(*parts, strict=True)))
    reduce = _unbiased_reduction if unbiased else _biased_reduction
    return Reductions(*(reduce(left, right) for left, right in ((x, y), (x, x), (y, y))))


def _unbiased_reduction(x: PackedGrams, y: PackedGrams) -> Tensor:
    n = x.num_samples
    if x is y:
        # The packed matrices already have the squared norms of their rows.
        scales = x.scales.to(accumulator_dtype(x.scales.device))
        rows = x.row_squares.to(scales) * scales[:, None] ** 4
    else:
        rows = row_products(x, y, unbiased=True)
    return 2 * rows * (n - 2) / (n - 3)


def _biased_reduction(x: PackedGrams, y: PackedGrams) -> Tensor:
    n = x.num_samples
    rows = row_products(x, y, unbiased=False)
    own = diagonals(x).to(rows) * diagonals(y).to(rows)
    own = own * (x.scales.to(rows) * y.scales.to(rows)).square()[:, None]
    return 2 * rows - own + 2 * (rows - own) / (n - 1) - own / (n - 1) ** 2


def leave_one_out(
    records: Sequence[BatchRecord],
    names: Sequence[str | None],
    sums: tuple[Tensor, Tensor, Tensor],
    *,
    distributed: bool,
) -> dict[str, LeaveOneOut]:
    """Return for each pair of layers the sample of the probe set without which CKA changes most.

    Args:
        records: Records of this process's batches.
        names: Names of the P pairs. None: leave out the pair.
        sums: <K, L>, <K, K> and <L, L> of the P pairs, ``(P,)``, summed over all batches of all processes.
        distributed: Whether several processes share the batches. Then all of them must call this.

    Returns:
        Samples by name of the pair. Pairs whose CKA is ``nan`` are missing. ``without`` and ``change`` are ``nan`` if
        the other samples contribute so little that it cannot be distinguished from rounding errors.
    """
    value = cka_of_sums(sums)
    # The rows are change, CKA without the sample, and sample. A process without batches has a change below any other.
    largest = torch.stack([torch.full_like(value, -1.0), value, torch.full_like(value, -1.0)])
    for record in joined_records(records):
        without = without_each(record, sums)
        change = (without - value[:, None]).abs()
        compared = change.nan_to_num(torch.inf)
        # Of equal changes, that of the lower sample.
        is_largest = compared == compared.amax(1, keepdim=True)
        index = record.samples.where(is_largest, record.samples.new_tensor(torch.inf)).argmin(1, keepdim=True)
        own = torch.stack([change.gather(1, index), without.gather(1, index), record.samples[index]])
        largest = _larger_change(largest, own[:, :, 0])
    for other in all_gather(largest, distributed=distributed):
        largest = _larger_change(largest, other)
    defined = value.isfinite().tolist()
    changes, withouts, samples = largest.tolist()
    return {
        name: LeaveOneOut(int(samples[i]), withouts[i], changes[i])
        for i, name in enumerate(names)
        if name is not None and defined[i] and samples[i] >= 0
    }


def cka_of_sums(sums: Sequence[Tensor]) -> Tensor:
    """Return CKA, ``(...)``, from the sums <K, L>, <K, K> and <L, L>, each ``(...)``."""
    pairs, layers, references = sums
    return pairs / (layers * references).sqrt()


def without_each(record: JoinedRecords, sums: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return CKA of P pairs without each of m samples, ``(P, m)``; ``nan`` if too little remains."""
    pairs, layers, references = sums
    reductions = record.reductions
    left, right = layers[:, None] - reductions.layers, references[:, None] - reductions.references
    without = (pairs[:, None] - reductions.pairs) / (left * right).sqrt()
    part = _MIN_REMAINDER * record.eps
    is_precise = (left > part * layers[:, None]) & (right > part * references[:, None])
    return without.where(is_precise, torch.full_like(without, torch.nan))


def _larger_change(one: Tensor, other: Tensor) -> Tensor:
    """Return for each pair the column of two ``(3, P)`` with the larger change; of equal changes, the lower sample.

    A change of ``nan`` is larger than any number.
    """
    a, b = (each[0].nan_to_num(torch.inf) for each in (one, other))
    return torch.where((a > b) | ((a == b) & (one[2] <= other[2])), one, other)
