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
        groups: Unit vectors that are constant in each group and sum to zero, ``(L, n)``, in float64.
    """
    product = grams.times(groups[:, None])[:, 0]
    return Removed(groups, product - groups * dots(product, groups)[:, None] / 2)


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
    with_x, with_y = (_overlaps(side, (from_x, from_y)) for side in (x, y))
    pairs = _inner(from_x, from_y) - with_y[:, 0] - with_x[:, 1]
    products = [pairs, _inner(from_x, from_x) - 2 * with_x[:, 0], _inner(from_y, from_y) - 2 * with_y[:, 1]]
    remaining = whole + torch.stack(products)
    if unbiased:
        return remaining
    d, e = (side.diagonal - removed.diagonals() for side, removed in ((x, from_x), (y, from_y)))
    return remaining + torch.stack([diagonal_part(*each) for each in ((d, e), (d, d), (e, e))])


def squares_without(grams: CenteredGrams, removed: Removed, squares: Tensor) -> Tensor:
    """Return the squared Frobenius norms of K - A, ``(L,)``.

    Args:
        grams: Gram matrices K, in float64.
        removed: What is subtracted.
        squares: <U, U>, ``(L,)``.
    """
    d = grams.diagonal - removed.diagonals()
    overlaps = _overlaps(grams, (removed,))[:, 0]
    return squares + _inner(removed, removed) - 2 * overlaps + diagonal_part(d, d)


def _overlaps(grams: CenteredGrams, removed: Sequence[Removed]) -> Tensor:
    """Return <U_A, U> for each of the k matrices A, ``(L, k)``."""
    left, right = (torch.stack(vectors, 1) for vectors in zip(*removed, strict=True))
    products = grams.u_times(torch.cat([left, torch.ones_like(left[:, :1])], 1))
    # The row sums of U are zero up to the rounding of its own dtype, which would be too much next to a large A.
    row_sums = products[:, -1:]
    return 2 * (dots(products[:, :-1], right) + dots(_shift(left, right), row_sums))


def _shift(left: Tensor, right: Tensor) -> Tensor:
    """Return what U-centering adds to the rows and columns of A."""
    return u_centering_shift(2 * left * right)


def _inner(a: Removed, b: Removed) -> Tensor:
    """Return <U_A, U_B>, ``(L,)``."""
    same = dots(a.left, b.left) * dots(a.right, b.right)
    crossed = dots(a.left, b.right) * dots(a.right, b.left)
    return 2 * (same + crossed) - diagonal_part(a.diagonals(), b.diagonals())
