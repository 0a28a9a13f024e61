"""Inner products between Gram matrices: the HSIC of all pairs of layers on one batch."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cka.hsic.folding import fold, folded_row_sums, half_size
from lightning_cka.hsic.packed import PackedGrams, diagonals, select_layers, unpack
from lightning_cka.hsic.precision import accumulator_dtype, full_precision

_PAIR_BLOCK = 2048


def half_vectors(packed: PackedGrams, *, unbiased: bool) -> Tensor:
    """Vectors whose inner products are the unnormalised HSIC of their layers, scaled.

    Returns:
        ``(L, p)``. With ``unbiased``, ``v_K . v_L = <U_K, U_L>_F / 2``; else ``<K, L>_F / 2``.
    """
    if unbiased:
        return packed.halves
    n = packed.num_samples
    vectors = packed.halves.new_empty(len(packed.halves), n * (half_size(n) + 1))
    for layer in range(len(vectors)):  # Whole matrices of all layers at once would take much memory.
        one = select_layers(packed, slice(layer, layer + 1))
        torch.cat([fold(unpack(one))[0], diagonals(one)[0] / 2**0.5], out=vectors[layer])
    return vectors


def hsic_products(x: PackedGrams, y: PackedGrams | None, *, unbiased: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The products that CKA is made of, of the features themselves: scales are in them.

    Args:
        x: L layers of one batch.
        y: R layers of the same batch; None: x again.
        unbiased: see `half_vectors`.

    Returns:
        ``(L, R)`` of <K, L>, ``(L,)`` of <K, K> and ``(R,)`` of <L, L>, accumulated in float64.
    """
    x_vectors = half_vectors(x, unbiased=unbiased)
    y_vectors = x_vectors if y is None else half_vectors(y, unbiased=unbiased)
    dtype = accumulator_dtype(x_vectors.device)
    x_scales = x.scales.to(dtype).square()
    y_scales = x_scales if y is None else y.scales.to(dtype).square()
    pairs, x_norms, y_norms = inner_products(x_vectors, y_vectors)
    # Scales are powers of 2: that is exact.
    return pairs * x_scales[:, None] * y_scales, x_norms * x_scales**2, y_norms * y_scales**2


def row_products(x: PackedGrams, y: PackedGrams, *, unbiased: bool) -> Tensor:
    """Each sample's part of <K, L>, for layers taken pair by pair.

    Args:
        x: L layers of one batch of n samples.
        y: as many layers of the same batch.
        unbiased: see `half_vectors`.

    Returns:
        ``(L, n)``, inner products of the matrices' rows, in float64; each sums to <K, L>.
    """
    dtype = accumulator_dtype(x.halves.device)
    product = half_vectors(x, unbiased=unbiased) * half_vectors(y, unbiased=unbiased)
    n = x.num_samples
    folded, diagonal = product[:, : n * half_size(n)], product[:, n * half_size(n) :]
    rows = folded_row_sums(folded.reshape(-1, n, half_size(n))).to(dtype)
    if not unbiased:
        rows = rows + 2 * diagonal
    return rows * (x.scales.to(dtype) * y.scales.to(dtype)).square()[:, None]


def inner_products(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All inner products ``<., .>_F`` between the matrices of two sets of half vectors, and of each with itself.

    Args:
        x: ``(L, p)`` half vectors.
        y: ``(R, p)`` half vectors.

    Returns:
        ``(L, R)``, ``(L,)`` and ``(R,)``, accumulated in float64 (float32 on devices without it).
    """
    dtype = accumulator_dtype(x.device)
    pairs = torch.zeros(len(x), len(y), dtype=dtype, device=x.device)
    x_norms, y_norms = pairs.new_zeros(len(x)), pairs.new_zeros(len(y))
    with full_precision(x.device.type):
        for block, other in zip(torch.split(x, _PAIR_BLOCK, dim=1), torch.split(y, _PAIR_BLOCK, dim=1), strict=True):
            left = block.to(dtype)
            right = left if y is x else other.to(dtype)
            pairs.addmm_(left, right.T)
            if y is not x:
                x_norms += torch.linalg.vector_norm(left, dim=1).square()
                y_norms += torch.linalg.vector_norm(right, dim=1).square()
    if y is x:
        # Taken from the pairs themselves: only then is the diagonal of CKA exactly 1.
        x_norms = y_norms = pairs.diagonal()
    return 2 * pairs, 2 * x_norms, 2 * y_norms
