"""Which sample each row of a layer's output belongs to, found by showing the layer fewer samples."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor

_TOLERANCE = 1e-3
"""Two rows are equal if they differ by less, relative to the largest entry: n and n - 1 rows round differently."""


class RowOrder(Enum):
    """How the rows for some samples relate to the rows for all samples."""

    SAME = "each sample keeps its row"
    PERMUTED = "the rows are in another order than the samples"
    UNKNOWN = "the rows depend on the other samples or on chance, so that they cannot be compared"


class Folding(Enum):
    """How k rows for each sample lie in one dimension of n k rows."""

    BY_SAMPLE = "the k rows of a sample follow each other"
    BY_VIEW = "the n rows of a view follow each other"
    UNKNOWN = "neither fits the values"


def find_row_order(full: Tensor, fewer: Tensor, samples: Sequence[int]) -> RowOrder:
    """Compare the rows of two outputs.

    Args:
        full: Output for n samples, of shape ``(n, ...)``.
        fewer: Output for m of these samples, of shape ``(m, ...)``. Its other dimensions may be smaller, as padding is
            that adapts to the longest sample.
        samples: The places in [0, n) of the samples in ``fewer``, in their order.

    Returns:
        `RowOrder.SAME` if the rows of the samples that both have are equal; `RowOrder.PERMUTED` if each row is equal
        to one of another place.
    """
    one, other = _common(full, fewer)
    if not len(other):
        return RowOrder.UNKNOWN
    if _equal(one[list(samples)], other).all():
        return RowOrder.SAME
    equal = torch.stack([_equal(one, row.expand_as(one)) for row in other])
    # Equal rows, as of a dead layer, fit everywhere: such a layer has no order.
    is_permuted = bool((equal.sum(1) == 1).all()) and len(set(equal.int().argmax(1).tolist())) == len(other)
    return RowOrder.PERMUTED if is_permuted else RowOrder.UNKNOWN


def find_folding(full: Tensor, fewer: Tensor, n: int) -> Folding:
    """Find out how the first dimension of an output is made of n samples and k rows for each.

    Args:
        full: Output for n samples, of shape ``(n k, ...)``.
        fewer: Output for all samples but the last, of shape ``((n - 1) k, ...)``.
        n: Number of samples.
    """
    k = len(full) // n
    one, other = _common(full, fewer)
    layouts = {
        Folding.BY_SAMPLE: (one.view(n, k, -1), other.view(n - 1, k, -1)),
        Folding.BY_VIEW: (one.view(k, n, -1).transpose(0, 1), other.view(k, n - 1, -1).transpose(0, 1)),
    }
    fitting = [
        folding
        for folding, (left, right) in layouts.items()
        if _equal(left[:-1].flatten(0, 1), right.flatten(0, 1)).all()
    ]
    return fitting[0] if len(fitting) == 1 else Folding.UNKNOWN


def _common(full: Tensor, fewer: Tensor) -> tuple[Tensor, Tensor]:
    """Both as rows of equal length: the entries that both have, in float32."""
    sizes = [slice(0, min(one, other)) for one, other in zip(full.shape[1:], fewer.shape[1:], strict=True)]
    return tuple(tensor[(slice(None), *sizes)].detach().float().flatten(1) for tensor in (full, fewer))  # type: ignore[return-value]


def _equal(one: Tensor, other: Tensor) -> Tensor:
    """``(m,)`` bool: whether rows of two ``(m, d)`` are equal but for rounding; ``nan`` is equal to ``nan``."""
    largest = torch.maximum(_largest(one), _largest(other))
    differences = (one - other).abs()
    is_equal = (differences <= _TOLERANCE * largest) | (one.isnan() & other.isnan()) | (one == other)
    return is_equal.all(1)


def _largest(rows: Tensor) -> Tensor:
    """The largest finite absolute entry; 0 if there is none."""
    return rows.abs().nan_to_num(0.0, 0.0, 0.0).amax() if rows.numel() else rows.new_zeros(())
