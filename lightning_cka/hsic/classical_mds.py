"""Classical multidimensional scaling: coordinates of the samples of a Gram matrix, and rotations between them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.hsic.centering import doubly_centered

_TIED = 1e-6
"""Largest relative difference of two entries that count as equally large."""


class Embedding(NamedTuple):
    """Coordinates of n samples along the k directions with the largest variance."""

    coordinates: Tensor
    """``(n, k)`` float64, with mean 0. Their distances approximate those of the features, and never exceed them."""
    shares: Tensor
    """Part of all variance along each direction, ``(k,)`` float64, in descending order."""


def classical_mds(gram: Tensor, k: int = 2) -> Embedding:
    """Return the first k coordinates of the samples of a Gram matrix (classical MDS, the same as kernel PCA).

    Coordinates are eigenvectors of the doubly centered matrix times the roots of their eigenvalues. The sign of each
    direction is that which makes its largest coordinate positive. Paper: Torgerson 1952,
    https://doi.org/10.1007/BF02288916.

    Args:
        gram: A Gram matrix ``(n, n)``, centered or not. Negative eigenvalues, which are rounding errors, count as zero.
        k: Number of directions, from 1 to n. Coordinates are zero along directions without variance.

    Raises:
        ValueError: The matrix is not square, has ``nan`` or infinite entries, or does not vary; or k is out of range.
    """
    n = len(gram)
    if gram.shape != (n, n) or not 1 <= k <= n:
        raise ValueError(
            f"expected a square Gram matrix and k from 1 to its size {n}, but got {tuple(gram.shape)}, {k=}"
        )
    centered = doubly_centered(gram.double())
    largest = centered.abs().max()
    if not largest.isfinite():
        raise ValueError("some entries of the Gram matrix are nan or infinite")
    if largest == 0:
        raise ValueError("the features do not vary: all entries of the centered Gram matrix are zero")
    values, vectors = torch.linalg.eigh(centered)
    values = values.where(values > 0, torch.zeros_like(values)).flip(0)
    vectors = vectors.flip(1)[:, :k]
    return Embedding(vectors * _signs(vectors) * values[:k].sqrt(), values[:k] / values.sum())


def _signs(vectors: Tensor) -> Tensor:
    """Return for each column the sign of its largest entry, the first of several that are equal up to rounding."""
    sizes = vectors.abs()
    first = (sizes >= sizes.amax(0) * (1 - _TIED)).to(torch.int8).argmax(0, keepdim=True)
    return vectors.gather(0, first).sign()


def procrustes_rotation(moving: Tensor, fixed: Tensor) -> Tensor:
    """Return the orthogonal matrix R, a rotation or a reflection, that minimizes the distance of moving R and fixed.

    Paper: Schönemann 1966, https://doi.org/10.1007/BF02289451.

    Args:
        moving: Coordinates ``(n, k)``.
        fixed: Coordinates of the same samples, ``(n, k)``.

    Returns:
        R, ``(k, k)``.
    """
    left, _, right = torch.linalg.svd(moving.mT @ fixed)
    rotation: Tensor = left @ right
    return rotation
