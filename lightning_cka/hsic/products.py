"""Inner products of vectors that are made of Gram matrices, such as the HSIC of all pairs of layers on one batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.hsic.folding import fold, folded_row_sums, half_size
from lightning_cka.hsic.packed import PackedGrams, diagonals, select_layers, unpack
from lightning_cka.hsic.precision import accumulator_dtype, full_precision

_COLUMN_BLOCK = 2048
"""Columns converted to float64 at a time. A copy of whole vectors would double the memory."""


class Vectors(NamedTuple):
    """One vector for each of L layers on one batch. A similarity of layers is the cosine between such vectors."""

    values: Tensor
    """The vectors, ``(L, p)``, of any dtype."""
    factors: Tensor
    """Factors of the vectors, ``(L,)``. Zero: the layer has no variance. ``nan``: it is undefined."""
    num_samples: int
    """Number of samples n in the batch."""
    chance: float = 0.0
    """Inner product of the vectors of unrelated layers on average, which is subtracted from all products."""

    def products(self, other: Vectors | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return twice the inner products, which are summed over batches.

        Args:
            other: Vectors of R layers on the same batch; None: these again.

        Returns:
            <v, w> ``(L, R)``, <v, v> ``(L,)`` and <w, w> ``(R,)``, in float64.
        """
        other = self if other is None else other
        pairs, norms, other_norms = inner_products(self.values, other.values)
        own, others = self.factors.to(pairs), other.factors.to(pairs)
        # Factors are powers of 2, so these products are exact.
        pairs = (pairs - 2 * self.chance) * own[:, None] * others
        return pairs, (norms - 2 * self.chance) * own**2, (other_norms - 2 * other.chance) * others**2


def partner_products(x: Vectors, y: Vectors) -> Tensor:
    """Return `Vectors.products` for matching layers only: <v, w>, <v, v> and <w, w>, ``(3, L)``, in float64."""
    found = []
    for one, other in ((x, y), (x, x), (y, y)):
        inner = torch.linalg.vecdot(one.values.float(), other.values.float()).double()
        found.append(2 * (inner - one.chance) * one.factors.double() * other.factors.double())
    return torch.stack(found)


def half_vectors(packed: PackedGrams, *, unbiased: bool) -> Tensor:
    """Return one vector per layer, whose inner products are half the unnormalised HSIC, of features / scale.

    Args:
        packed: Gram matrices of L layers.
        unbiased: Whether to use the U-centered matrices U; else the doubly centered matrices K.

    Returns:
        Vectors, ``(L, p)``: ``v_K . v_L = <U_K, U_L>_F / 2`` if unbiased, else ``<K, L>_F / 2``.
    """
    if unbiased:
        return packed.halves
    n = packed.num_samples
    vectors = packed.halves.new_empty(len(packed.halves), n * (half_size(n) + 1))
    for layer in range(len(vectors)):  # One layer at a time: full matrices of all layers need much memory.
        one = select_layers(packed, slice(layer, layer + 1))
        # The diagonal occurs once in <K, L>, and the other entries twice. Hence the factor sqrt(1/2).
        torch.cat([fold(unpack(one))[0], diagonals(one)[0] / 2**0.5], out=vectors[layer])
    return vectors


def hsic_vectors(packed: PackedGrams, *, unbiased: bool) -> Vectors:
    """Return the vectors whose products are the unnormalised HSIC; see `half_vectors`."""
    scales = packed.scales.to(accumulator_dtype(packed.scales.device)).square()
    return Vectors(half_vectors(packed, unbiased=unbiased), scales, packed.num_samples)


def hsic_products(x: PackedGrams, y: PackedGrams | None, *, unbiased: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the three products that CKA is made of, with the scales applied.

    Args:
        x: Gram matrices of L layers on one batch.
        y: Gram matrices of R layers on the same batch; None: x again.
        unbiased: See `half_vectors`.

    Returns:
        <K, L> ``(L, R)``, <K, K> ``(L,)`` and <L, L> ``(R,)``, accumulated in float64.
    """
    own = hsic_vectors(x, unbiased=unbiased)
    return own.products(None if y is None else hsic_vectors(y, unbiased=unbiased))


def row_products(x: PackedGrams, y: PackedGrams, *, unbiased: bool) -> Tensor:
    """Return each sample's part of <K, L>, for matching pairs of layers.

    Args:
        x: Gram matrices of L layers on one batch of n samples.
        y: Gram matrices of L layers on the same batch.
        unbiased: See `half_vectors`.

    Returns:
        Inner products of the matrices' rows, ``(L, n)``, in float64. Each row of the result sums to <K, L>.
    """
    dtype = accumulator_dtype(x.halves.device)
    product = half_vectors(x, unbiased=unbiased) * half_vectors(y, unbiased=unbiased)
    n = x.num_samples
    folded, diagonal = product[:, : n * half_size(n)], product[:, n * half_size(n) :]
    rows = folded_row_sums(folded.reshape(-1, n, half_size(n))).to(dtype)
    if not unbiased:
        rows = rows + 2 * diagonal  # Half vectors hold the diagonal times sqrt(1/2).
    return rows * (x.scales.to(dtype) * y.scales.to(dtype)).square()[:, None]


def inner_products(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the Frobenius inner products of all pairs of matrices, given as half vectors.

    Args:
        x: Half vectors, ``(L, p)``.
        y: Half vectors, ``(R, p)``.

    Returns:
        <x_i, y_j> ``(L, R)``, <x_i, x_i> ``(L,)`` and <y_j, y_j> ``(R,)``, accumulated in float64 (float32 on devices
        without float64).
    """
    dtype = accumulator_dtype(x.device)
    pairs = torch.zeros(len(x), len(y), dtype=dtype, device=x.device)
    x_norms, y_norms = pairs.new_zeros(len(x)), pairs.new_zeros(len(y))
    with full_precision(x.device.type):
        for block, other in zip(
            torch.split(x, _COLUMN_BLOCK, dim=1), torch.split(y, _COLUMN_BLOCK, dim=1), strict=True
        ):
            left = block.to(dtype)
            right = left if y is x else other.to(dtype)
            pairs.addmm_(left, right.T)
            if y is not x:
                x_norms += torch.linalg.vector_norm(left, dim=1).square()
                y_norms += torch.linalg.vector_norm(right, dim=1).square()
    if y is x:
        # Norms computed in another way differ by rounding, and the diagonal of CKA would not be exactly 1.
        x_norms = y_norms = pairs.diagonal()
    return 2 * pairs, 2 * x_norms, 2 * y_norms
