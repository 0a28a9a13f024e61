"""`PackedGrams`: the centered Gram matrices of many layers on one batch, each entry stored once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.hsic.centering import exceeds_rounding, u_centered
from lightning_cka.hsic.folding import fold, unfold
from lightning_cka.hsic.precision import accumulator_dtype

USABLE, NOT_FINITE, TOO_FAR, MISSING, UNKNOWN = range(5)
"""States of a sample in a layer: it is usable; it has ``nan`` or infinite features; it is so far from the others that
squared distances overflow; the layer gave no row for it; it is unknown which sample makes the layer undefined."""

_MAX_DISTANCE_ERROR = 0.05
"""Largest relative rounding error of a squared distance that is still used."""


class PackedGrams(NamedTuple):
    """The Gram matrices of L layers on one batch of n samples, each entry stored once.

    HSIC needs the U-centered off-diagonal entries U. The offsets s give the squared distances between samples,
    ``D_ij = -2 (U_ij + s_i + s_j)``, and the doubly centered matrices follow from these. With U and s apart, an
    outlier does not reduce the precision of the other samples' entries.
    """

    halves: Tensor
    """The U-centered Gram matrices, ``(L, n ceil(n/2))``, in the folded layout; see `fold`."""
    offsets: Tensor
    """The offsets s, ``(L, n)``: U-centering subtracts s_i from row i and from column i of -D/2."""
    scales: Tensor
    """Powers of 2, ``(L,)``. The matrices are those of features / scale, which keeps them in float32's range. The
    scale of a layer without variance is zero: its matrices are rounding errors."""
    row_squares: Tensor
    """Squared norms of the rows of U, ``(L, n)``: each sample's part of <U, U>. In a layer with undefined entries,
    where U and s are ``nan``, they are the states of the samples instead; see `row_states`. Only the rows and
    columns of samples that are not usable are ``nan``. The others are centered without these samples."""

    @property
    def num_samples(self) -> int:
        """Return the batch size n."""
        return int(self.offsets.shape[-1])


def pack_stack(grams: Tensor) -> PackedGrams:
    """Pack Gram matrices, centered or not.

    Args:
        grams: Symmetric matrices, ``(L, n, n)``, n >= 4.

    Returns:
        The packed matrices, in the dtype of ``grams``. The scale of a matrix is zero if double centering leaves only
        rounding errors of it.
    """
    centered = u_centered(grams)
    diagonal = grams.diagonal(dim1=-2, dim2=-1)
    offsets = u_centering_shift(grams.sum(-1) - diagonal) - diagonal / 2
    packed = PackedGrams(fold(centered), offsets, offsets.new_ones(len(offsets)), centered.square().sum(-1))
    # With the diagonal that follows from the offsets, the entries of U are all that double centering leaves.
    varies = exceeds_rounding(diagonals(packed).abs().amax(1), grams.abs().amax((1, 2)))
    return packed._replace(scales=torch.where(varies | (packed.row_squares.sum(1) != 0), packed.scales, 0.0))


def row_states(packed: PackedGrams) -> Tensor:
    """Return the state of each sample in each layer, ``(L, n)`` int8; `USABLE` for all samples of a defined layer.

    Gram matrices that a user computed, and those in files of version 0.1, are `UNKNOWN` where they are undefined.
    """
    states = packed.row_squares.nan_to_num(UNKNOWN).where(packed.offsets.isnan(), torch.zeros_like(packed.offsets))
    return states.to(torch.int8)


def select_layers(packed: PackedGrams, layers: slice | list[int] | Tensor) -> PackedGrams:
    """Return the Gram matrices of the given layers."""
    return PackedGrams(*(part[layers] for part in packed))


def widened(packed: PackedGrams) -> PackedGrams:
    """Return the Gram matrices in float64; in float32 on devices without float64."""
    return PackedGrams(*(part.to(accumulator_dtype(part.device)) for part in packed))


def unpack(packed: PackedGrams) -> Tensor:
    """Return the doubly centered Gram matrices ``(L, n, n)`` of features / scale."""
    d = diagonals(packed)
    return (d[:, :, None] + d[:, None, :] - squared_distances(packed)) / 2


def squared_distances(packed: PackedGrams) -> Tensor:
    """Return the squared distances ``(L, n, n)`` between samples, of features / scale.

    The distance of two identical samples is zero up to rounding. The diagonal is exactly zero.
    """
    n, s = packed.num_samples, packed.offsets
    full = (unfold(packed.halves, n) + s[:, :, None]).add_(s[:, None, :]).mul_(-2)
    full.diagonal(dim1=-2, dim2=-1).zero_()
    return full


def has_imprecise_distances(packed: PackedGrams) -> Tensor:
    """Return for which layers an outlier hides the distances between the other samples in rounding errors.

    Let one sample be c times as far from the center as the others. Then the largest offset is about c n times the
    median offset. The relative rounding error of the others' squared distances is about eps c / n, eps being that
    of the dtype. If it exceeds 5 percent, `nan` is better than a wrong number.

    Returns:
        Booleans, ``(L,)``.
    """
    sizes = packed.offsets.abs()
    spread = sizes.amax(1) / sizes.median(1).values
    is_imprecise: Tensor = spread > _MAX_DISTANCE_ERROR * packed.num_samples**2 / torch.finfo(packed.halves.dtype).eps
    return is_imprecise


def diagonals(packed: PackedGrams) -> Tensor:
    """Return the diagonals ``(L, n)`` of the doubly centered Gram matrices, of features / scale.

    They are the samples' squared distances from their mean.
    """
    return diagonals_of(packed.offsets)


def diagonals_of(offsets: Tensor) -> Tensor:
    """Return the diagonals ``(L, n)`` of doubly centered Gram matrices with these offsets ``(L, n)``."""
    n = offsets.shape[-1]
    return -2 * (n - 2) / n * offsets - 2 / n**2 * offsets.sum(-1, keepdim=True)


def u_centering_shift(sums: Tensor, counts: Tensor | None = None) -> Tensor:
    """Return what U-centering subtracts from row i and from column i.

    Args:
        sums: Row sums of the off-diagonal entries, ``(..., n)``.
        counts: Number of samples that are centered, ``(..., 1)``; the others have a sum of zero. None: n.

    Returns:
        Shifts, ``(..., n)``.
    """
    n = sums.shape[-1] if counts is None else counts
    return sums / (n - 2) - sums.sum(-1, keepdim=True) / (2 * (n - 1) * (n - 2))
