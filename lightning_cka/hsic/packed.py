"""`PackedGrams`: the centered Gram matrices of many layers on one batch, each entry kept once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.hsic.folding import fold, unfold
from lightning_cka.hsic.grams import u_centered

_LOST = 0.05
"""Largest relative error of a squared distance."""


class PackedGrams(NamedTuple):
    """The Gram matrices of L layers on one batch of n samples, each entry kept once.

    The U-centered off-diagonal part is what HSIC needs. The offsets beside it give the squared distances between
    samples, ``D_ij = -2 (U_ij + s_i + s_j)``, and so all else, without an outlier costing the other samples' digits.
    """

    halves: Tensor
    """(L, n ceil(n/2)): the U-centered Gram matrices, each entry once; see `fold`."""
    offsets: Tensor
    """(L, n): s, what U-centering takes from row i and from column i of -D/2."""
    scales: Tensor
    """(L,): powers of 2: the matrices are those of features / scale, so that none leaves float32's range. Zero for
    a layer without variance, whose matrices are rounding errors."""
    row_squares: Tensor
    """(L, n): squared norms of the U-centered Gram matrices' rows, each sample's part of <U, U>."""

    @property
    def num_samples(self) -> int:
        """The batch size n."""
        return int(self.offsets.shape[-1])


def pack_stack(grams: Tensor) -> PackedGrams:
    """Pack Gram matrices, centered or not.

    Args:
        grams: ``(L, n, n)`` symmetric matrices, n >= 4.

    Returns:
        Their packed form, in the dtype of ``grams``.
    """
    centered = u_centered(grams)
    diagonal = grams.diagonal(dim1=-2, dim2=-1)
    offsets = u_centering_shift(grams.sum(-1) - diagonal) - diagonal / 2
    return PackedGrams(fold(centered), offsets, offsets.new_ones(len(offsets)), centered.square().sum(-1))


def select_layers(packed: PackedGrams, layers: slice | list[int]) -> PackedGrams:
    """The Gram matrices of some of the layers."""
    return PackedGrams(*(part[layers] for part in packed))


def unpack(packed: PackedGrams) -> Tensor:
    """The doubly centered Gram matrices ``(L, n, n)`` that were packed, of features / scale."""
    d = diagonals(packed)
    return (d[:, :, None] + d[:, None, :] - squared_distances(packed)) / 2


def squared_distances(packed: PackedGrams) -> Tensor:
    """Squared distances ``(L, n, n)`` between samples, of features / scale; zero but for rounding where these agree."""
    n, s = packed.num_samples, packed.offsets
    full = -2 * (unfold(packed.halves, n) + s[:, :, None] + s[:, None, :])
    full.diagonal(dim1=-2, dim2=-1).zero_()
    return full


def hidden_distances(packed: PackedGrams) -> Tensor:
    """``(L,)`` bool: whether some samples are so far out that the distances between the others cannot be had back.

    An outlier c times as far out as the others leaves some c n between the largest offset and the median one, and
    the others' squared distances with a relative error of eps c / n. No number is better than a wrong one.
    """
    sizes = packed.offsets.abs()
    spread = sizes.amax(1) / sizes.median(1).values
    hidden: Tensor = spread > _LOST * packed.num_samples**2 / torch.finfo(packed.halves.dtype).eps
    return hidden


def diagonals(packed: PackedGrams) -> Tensor:
    """Squared distances ``(L, n)`` of the samples from their mean, of features / scale: the centered diagonals."""
    n, s = packed.num_samples, packed.offsets
    return -2 * (n - 2) / n * s - 2 / n**2 * s.sum(-1, keepdim=True)


def u_centering_shift(sums: Tensor) -> Tensor:
    """What U-centering takes from row i and from column i of matrices with off-diagonal row sums ``(..., n)``."""
    n = sums.shape[-1]
    return sums / (n - 2) - sums.sum(-1, keepdim=True) / (2 * (n - 1) * (n - 2))
