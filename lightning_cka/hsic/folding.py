"""The folded layout: symmetric matrices that store each off-diagonal entry once.

Two plain matrix products write this layout directly. A packed triangle would need a gather, which is slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

_INDICES_AT_A_TIME = 2**15


def half_size(n: int) -> int:
    """Return h = ceil(n/2), the number of samples in the first half of a batch of n."""
    return (n + 1) // 2


def fold(matrices: Tensor) -> Tensor:
    """Return the off-diagonal entries of symmetric matrices, each once, padded with zeros.

    Let h = ceil(n/2). The first h columns hold every entry except the lower right corner, ``(n - h, n - h)``.
    The entries above the diagonal of these columns repeat those below it. The corner's entries above its diagonal
    are stored in their place. The diagonal is zero.

    Args:
        matrices: Symmetric matrices, ``(L, n, n)``.

    Returns:
        Folded matrices, ``(L, n h)``.
    """
    h = half_size(matrices.shape[-1])
    folded = matrices[:, :, :h].clone()
    fold_in(folded, matrices[:, h:, h:])
    folded.diagonal(dim1=1, dim2=2).zero_()
    return folded.flatten(1)


def fold_in(folded: Tensor, corners: Tensor) -> None:
    """Store the lower right corners of symmetric matrices above the diagonal of their first columns, in place.

    Args:
        folded: First h columns of the matrices, ``(L, n, h)``; completed in place.
        corners: Lower right corners of the matrices, ``(L, n - h, n - h)``.
    """
    m = corners.shape[-1]
    square = folded[:, :m, :m]
    # With weights 0 and 1, lerp selects one of its inputs exactly. `torch.where` takes three times as long.
    torch.lerp(corners, square, _below_diagonal(m, folded.dtype, folded.device), out=square)
    folded[:, :m, m : folded.shape[2]] = 0  # If n is odd, the last column has no counterpart in the corner.


def unfold(halves: Tensor, n: int) -> Tensor:
    """Return the symmetric matrices ``(L, n, n)`` of folded ones ``(L, n h)``, with zeros on the diagonal."""
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


def triangle_indices(n: int) -> Tensor:
    """Return the positions of the strictly lower triangle in a folded matrix.

    Returns:
        Indices into ``(n h,)``, of shape ``(n(n-1)/2,)``, in row-major order of the triangle.
    """
    h = half_size(n)
    rows, columns = torch.tril_indices(n, n, -1, device="cpu")
    return _positions(rows, columns, h)


def lower_triangles(folded: Tensor, n: int) -> Tensor:
    """Return the strictly lower triangles ``(L, n(n-1)/2)``, row by row, of folded matrices ``(L, n h)``."""
    triangles = folded.new_empty(len(folded), n * (n - 1) // 2)
    for part, positions in _triangle_parts(n):
        triangles[:, part] = folded.index_select(1, positions)
    return triangles


def fold_triangles(triangles: Tensor, n: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return the folded matrices ``(L, n h)`` whose strictly lower triangles are ``(L, n(n-1)/2)``, row by row.

    Args:
        triangles: The triangles.
        n: Number of samples.
        dtype: Dtype of the folded matrices; None: that of the triangles.
    """
    folded = triangles.new_zeros(len(triangles), n * half_size(n), dtype=dtype)
    for part, positions in _triangle_parts(n):
        folded.index_copy_(1, positions, triangles[:, part].to(folded.dtype))
    return folded


def _triangle_parts(n: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield parts of a strictly lower triangle, and the positions of their entries in a folded matrix.

    A part is some rows, because indices of all entries would take more memory than the matrices.
    """
    step = max(1, _INDICES_AT_A_TIME // n)
    for first in range(1, n, step):
        sizes = torch.arange(first, min(first + step, n), device="cpu")  # Row i of the triangle has i entries.
        rows = sizes.repeat_interleave(sizes)
        start = first * (first - 1) // 2
        entries = torch.arange(start, start + len(rows), device="cpu")
        columns = entries - rows * (rows - 1) // 2
        yield slice(start, start + len(rows)), _positions(rows, columns, half_size(n))


def _positions(rows: Tensor, columns: Tensor, h: int) -> Tensor:
    """Return where the entries of a strictly lower triangle are in a folded matrix."""
    return torch.where(columns < h, rows * h + columns, (columns - h) * h + rows - h)


def folded_row_sums(folded: Tensor) -> Tensor:
    """Return the row sums ``(L, n)`` of the symmetric matrices that are folded in ``(L, n, h)``."""
    n, h = folded.shape[1:]
    top, rest = folded[:, :h], folded[:, h:]
    # Below the diagonal of `top` is the upper left corner of the matrix; above it is the lower right corner.
    lower = top * _below_diagonal(h, folded.dtype, folded.device)
    upper = top - lower
    first = lower.sum(1) + lower.sum(2) + rest.sum(1)
    second = (upper.sum(1) + upper.sum(2))[:, : n - h] + rest.sum(2)
    return torch.cat([first, second], 1)


def row_sums(corner_row_sums: Tensor, columns: Tensor) -> Tensor:
    """Return the row sums ``(L, n)`` of symmetric matrices that are not folded yet.

    Args:
        corner_row_sums: Row sums of the lower right corners, ``(L, n - h)``.
        columns: First h columns of the matrices, ``(L, n, h)``.
    """
    h = columns.shape[2]
    return torch.cat([columns.sum(1), columns[:, h:].sum(2) + corner_row_sums], 1)


@lru_cache(maxsize=8)
def _below_diagonal(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return an ``(n, n)`` mask: 1 below the diagonal, 0 elsewhere."""
    # A cached tensor that was made in inference mode could not be used outside it.
    with torch.inference_mode(False):
        return torch.ones(n, n, dtype=dtype, device=device).tril(-1)
