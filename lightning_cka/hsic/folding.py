"""Symmetric matrices, each entry kept once, in a layout that two matrix products write and no gather packs."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def half_size(n: int) -> int:
    """How many samples the first half of n has; the other one has as many, or one fewer."""
    return (n + 1) // 2


def fold(matrices: Tensor) -> Tensor:
    """The entries off the diagonal of symmetric matrices, each once, and some zeros.

    The first h = ceil(n/2) columns, n times h, hold all of a matrix but the last n - h of its rows and columns. These
    come above the diagonal, in the place of entries that are below it, too; zeros are on it.

    Args:
        matrices: ``(L, n, n)``.

    Returns:
        ``(L, n h)``.
    """
    h = half_size(matrices.shape[-1])
    folded = matrices[:, :, :h].clone()
    fold_in(folded, matrices[:, h:, h:])
    folded.diagonal(dim1=1, dim2=2).zero_()
    return folded.flatten(1)


def fold_in(folded: Tensor, corners: Tensor) -> None:
    """Complete ``(L, n, h)``, the first columns of symmetric matrices, by ``(L, n - h, n - h)``, their last corners."""
    m = corners.shape[-1]
    square = folded[:, :m, :m]
    # With weights of 0 and 1, one of the two, exactly; `torch.where` takes three times as long.
    torch.lerp(corners, square, _below_diagonal(m, folded.dtype, folded.device), out=square)
    folded[:, :m, m : folded.shape[2]] = 0  # A column that has no partner, if n is odd.


def unfold(halves: Tensor, n: int) -> Tensor:
    """The symmetric matrices ``(L, n, n)`` that were folded, zero on the diagonal."""
    h = half_size(n)
    m = n - h
    folded = halves.reshape(-1, n, h)
    full = halves.new_zeros(len(halves), n, n)
    below, above = folded[:, :h].tril(-1), folded[:, :m, :m].triu(1)
    full[:, :h, :h] = below + below.mT
    full[:, h:, h:] = above + above.mT
    full[:, h:, :h] = folded[:, h:]
    full[:, :h, h:] = folded[:, h:].mT
    return full


def triangle_places(n: int) -> Tensor:
    """``(n(n-1)/2,)``: where in ``(n h,)``, a folded matrix, the entries below its diagonal are, row by row."""
    h = half_size(n)
    rows, columns = torch.tril_indices(n, n, -1)
    return torch.where(columns < h, rows * h + columns, (columns - h) * h + rows - h)


def folded_row_sums(folded: Tensor) -> Tensor:
    """Row sums ``(L, n)`` of the symmetric matrices of which these, ``(L, n, h)``, hold each entry once."""
    n, h = folded.shape[1:]
    top, rest = folded[:, :h], folded[:, h:]
    lower = top * _below_diagonal(h, folded.dtype, folded.device)
    upper = top - lower
    first = lower.sum(1) + lower.sum(2) + rest.sum(1)
    second = (upper.sum(1) + upper.sum(2))[:, : n - h] + rest.sum(2)
    return torch.cat([first, second], 1)


def row_sums(of_corners: Tensor, folded: Tensor) -> Tensor:
    """Row sums ``(L, n)`` of symmetric matrices, given those of their last corners, and their first columns."""
    h = folded.shape[2]
    return torch.cat([folded.sum(1), folded[:, h:].sum(2) + of_corners], 1)


@lru_cache(maxsize=8)
def _below_diagonal(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(n, n)``: 1 below the diagonal, else 0."""
    # A cached tensor made in inference mode could not be used outside it.
    with torch.inference_mode(False):
        return torch.ones(n, n, dtype=dtype, device=device).tril(-1)
