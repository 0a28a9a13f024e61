"""HSIC of Gram matrices from which matrices of rank two were subtracted, without computing the differences.

Subtracting the leading eigenvector removes a direction. Subtracting K - (I - g g^T) K (I - g g^T) with a unit vector g
that is constant in each of two groups centers K within the groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.hsic.centered_grams import CenteredGrams, diagonal_part, dots
from lightning_cka.hsic.packed import u_centering_shift


class Removed(NamedTuple):
    """Matrices A = a b^T + b a^T that are subtracted from Gram matrices."""

    left: Tensor
    """Vectors a, ``(L, n)``, whose entries sum to zero, in float64."""
    right: Tensor
    """Vectors b, likewise."""

    def diagonals(self) -> Tensor:
        """Return the diagonals of A, ``(L, n)``."""
        return 2 * self.left * self.right

    def followed_by(self, other: Removed) -> Removed:
        """Return the matrices of both, of vectors ``(L, k, n)``; see `stacked`."""
        left, right = (torch.cat(vectors, 1) for vectors in zip(self, other, strict=True))
        return Removed(left, right)


def direction(values: Tensor, vectors: Tensor) -> Removed:
    """Return what is subtracted to remove eigenvectors.

    Args:
        values: Eigenvalues, ``(L,)``.
        vectors: Eigenvectors of length 1, ``(L, n)``.
    """
    return Removed(vectors * (values / 2)[:, None], vectors)


def between_groups(grams: CenteredGrams, groups: Tensor) -> Removed:
    """Return what is subtracted from Gram matrices to center them within two groups.

    Args:
        grams: The Gram matrices, in float64.
        groups: Unit vectors that are constant in each group and sum to zero, ``(L, n)`` or ``(L, k, n)``, in float64.
    """
    product = grams.times(groups if groups.ndim == 3 else groups[:, None]).view_as(groups)
    return Removed(groups, product - groups * dots(product, groups)[..., None] / 2)


def products_without(
    x: CenteredGrams, y: CenteredGrams, from_x: Removed, from_y: Removed, whole: Tensor, *, unbiased: bool
) -> Tensor:
    """Return the unnormalised HSIC of K - A and L - B, of K - A with itself, and of L - B with itself, ``(3, L)``.

    From <U_A, U_L> = 2 a^T U_L b, two products of each matrix with a vector replace the matrices K - A. Digits are lost
    where A is much larger than what remains, but float64 has more of them than the entries of float32.

    Args:
        x: Gram matrices K, in float64.
        y: Gram matrices L, in float64.
        from_x: What is subtracted from K.
        from_y: What is subtracted from L.
        whole: <U_K, U_L>, <U_K, U_K> and <U_L, U_L>, ``(3, L)``.
        unbiased: Whether the HSIC is the unbiased one, or <K - A, L - B>.
    """
    return products_without_each(x, y, stacked([from_x]), stacked([from_y]), whole, unbiased=unbiased)[:, :, 0]


def products_without_each(
    x: CenteredGrams, y: CenteredGrams, from_x: Removed, from_y: Removed, whole: Tensor, *, unbiased: bool
) -> Tensor:
    """Return what `products_without` returns, for k matrices A and B of each layer, ``(3, L, k)``.

    Args:
        x: Gram matrices K, in float64.
        y: Gram matrices L, in float64.
        from_x: What is subtracted from K; see `stacked`.
        from_y: What is subtracted from L.
        whole: <U_K, U_L>, <U_K, U_K> and <U_L, U_L>, ``(3, L)``.
        unbiased: As for `products_without`.
    """
    left, right = (torch.stack(vectors) for vectors in zip(from_x, from_y, strict=True))
    # Of both Gram matrices with A and with B.
    overlaps = _overlaps((x, y), left.transpose(0, 1).flatten(1, 2), right.transpose(0, 1).flatten(1, 2))
    with_a, with_b = overlaps.view(2, len(x.u), 2, -1).unbind(2)
    diagonals = 2 * left * right
    one, other = [0, 0, 1], [1, 0, 1]  # The sides of the three products.
    same = dots(left[one], left[other]) * dots(right[one], right[other])
    crossed = dots(left[one], right[other]) * dots(right[one], left[other])
    inner = 2 * (same + crossed) - diagonal_part(diagonals[one], diagonals[other])
    remaining = whole[:, :, None] + inner - torch.stack([with_a[1] + with_b[0], 2 * with_a[0], 2 * with_b[1]])
    if unbiased:
        return remaining
    d = torch.stack([x.diagonal, y.diagonal])[:, :, None] - diagonals
    return remaining + diagonal_part(d[one], d[other])


def stacked(removed: Sequence[Removed]) -> Removed:
    """Return k matrices of each layer together, with vectors ``(L, k, n)``, for `products_without_each`."""
    left, right = (torch.stack(vectors, 1) for vectors in zip(*removed, strict=True))
    return Removed(left, right)


def squares_without(grams: CenteredGrams, removed: Removed, squares: Tensor) -> Tensor:
    """Return the squared Frobenius norms of K - A, ``(L,)``.

    Args:
        grams: Gram matrices K, in float64.
        removed: What is subtracted.
        squares: <U, U>, ``(L,)``.
    """
    d = grams.diagonal - removed.diagonals()
    overlaps = _overlaps((grams,), removed.left[:, None], removed.right[:, None])[0, :, 0]
    same, crossed = dots(removed.left, removed.left) * dots(removed.right, removed.right), dots(*removed).square()
    inner = 2 * (same + crossed) - diagonal_part(removed.diagonals(), removed.diagonals())
    return squares + inner - 2 * overlaps + diagonal_part(d, d)


def _overlaps(grams: Sequence[CenteredGrams], left: Tensor, right: Tensor) -> Tensor:
    """Return <U_A, U> of several Gram matrices of each layer with each of m matrices A, ``(len(grams), L, m)``.

    Args:
        grams: The Gram matrices.
        left: Vectors a of the matrices A, ``(L, m, n)``.
        right: Vectors b, likewise.
    """
    vectors = torch.cat([left, torch.ones_like(left[:, :1])], 1)
    products = torch.stack([each.u_times(vectors) for each in grams])
    # The row sums of U are zero up to the rounding of its own dtype, which would be too much next to a large A.
    row_sums = products[:, :, -1:]
    # What U-centering adds to the rows and columns of A.
    shift = u_centering_shift(2 * left * right)
    return 2 * (dots(products[:, :, :-1], right) + dots(shift, row_sums))
