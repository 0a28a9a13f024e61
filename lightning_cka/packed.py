"""The Gram matrices of many layers on one batch, each entry kept once, and all HSICs between them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.grams import Workspace, doubly_centered, exceeds_rounding, full_precision, lower_gram, u_centered

_PAIR_BLOCK = 4096


class PackedGrams(NamedTuple):
    """The Gram matrices of L layers on one batch of n samples, each entry kept once.

    The U-centered off-diagonal part is what HSIC needs; with the diagonal of the centered Gram matrix
    beside it, the centered Gram matrix itself can be had back (`unpack`).
    """

    halves: Tensor
    """(L, n(n-1)/2): strictly lower triangles of the U-centered Gram matrices, row by row."""
    diagonals: Tensor
    """(L, n): diagonals of the centered Gram matrices, the squared norms of the centered samples."""
    scales: Tensor
    """(L,): powers of 2: the matrices are those of features / scale, so that none leaves float32's range. Zero for
    a layer without variance, whose matrices are rounding errors."""
    row_squares: Tensor
    """(L, n): squared norms of the U-centered Gram matrices' rows, each sample's part of <U, U>."""

    @property
    def num_samples(self) -> int:
        """The batch size n."""
        return int(self.diagonals.shape[-1])


def empty_packed(
    num_layers: int, n: int, *, dtype: torch.dtype, device: torch.device, workspace: Workspace
) -> PackedGrams:
    """Room for the Gram matrices of ``num_layers`` layers on n samples, in the workspace."""
    return PackedGrams(
        workspace.matrix("halves", num_layers, n * (n - 1) // 2, dtype, device),
        workspace.matrix("diagonals", num_layers, n, dtype, device),
        workspace.matrix("scales", 1, num_layers, dtype, device)[0],
        workspace.matrix("row_squares", num_layers, n, dtype, device),
    )


def pack(gram: Tensor, scale: Tensor, *, out: PackedGrams, layer: int) -> None:
    """Write one centered Gram matrix into row ``layer`` of ``out``.

    Args:
        gram: ``(n, n)`` doubly centered Gram matrix, of which the lower triangle is read; it is overwritten.
        scale: of the features that it is of.
        out: receives the result, of the same n.
        layer: the row of ``out``.
    """
    n = gram.shape[-1]
    diagonal = out.diagonals[layer].copy_(gram.diagonal())
    shift = _u_shift(diagonal)
    gram += shift[:, None]
    gram += shift
    half = out.halves[layer]
    torch.index_select(gram.view(-1), 0, lower_indices(n, gram.device), out=half)
    smallest, largest = half.aminmax()
    out.scales[layer] = scale * exceeds_rounding(torch.maximum(-smallest, largest), diagonal.amax())
    # Not `tril_`, which wakes all threads for however small a matrix.
    squares = gram.mul_(_lower_mask(n, gram.dtype, gram.device)).square_()
    torch.add(squares.sum(0), squares.sum(1), out=out.row_squares[layer])


def pack_stack(grams: Tensor) -> PackedGrams:
    """Pack Gram matrices, centered or not.

    Args:
        grams: ``(L, n, n)`` symmetric matrices, n >= 4.

    Returns:
        Their packed form, in the dtype of ``grams``.
    """
    centered = u_centered(grams)
    halves = centered.flatten(1).index_select(1, lower_indices(grams.shape[-1], grams.device))
    diagonals = doubly_centered(grams).diagonal(dim1=-2, dim2=-1).clone()
    return PackedGrams(halves, diagonals, diagonals.new_ones(len(diagonals)), centered.square().sum(-1))


def pack_features(features: Sequence[Tensor]) -> PackedGrams:
    """The linear Gram matrices of L layers' features ``(n, ...)``, in float32, or float64 if any of them are."""
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in features) else torch.float32
    workspace, device = Workspace(), features[0].device
    packed = empty_packed(len(features), len(features[0]), dtype=dtype, device=device, workspace=workspace)
    for layer, tensor in enumerate(features):
        gram, scale = lower_gram(tensor, workspace)
        pack(gram.to(dtype), scale, out=packed, layer=layer)
    return packed


def pack_precomputed(grams: Sequence[Tensor]) -> PackedGrams:
    """The same, of Gram matrices ``(n, n)`` that a user made.

    Raises:
        ValueError: they are not square, or not symmetric.
    """
    for gram in grams:
        if gram.shape != (len(gram), len(gram)):
            raise ValueError(f"kernel='precomputed' takes (n, n) Gram matrices, but got {tuple(gram.shape)}")
        if not torch.allclose(gram, gram.T, rtol=1e-3, atol=1e-3 * float(gram.abs().max()), equal_nan=True):
            raise ValueError("kernel='precomputed' takes symmetric Gram matrices, but got one that is not")
    dtype = torch.float64 if any(gram.dtype == torch.float64 for gram in grams) else torch.float32
    return pack_stack(torch.stack([gram.to(dtype) for gram in grams]))


def select_layers(packed: PackedGrams, layers: slice | list[int]) -> PackedGrams:
    """The Gram matrices of some of the layers."""
    return PackedGrams(*(part[layers] for part in packed))


def unpack(packed: PackedGrams) -> Tensor:
    """The doubly centered Gram matrices ``(L, n, n)`` that were packed, of features / scale."""
    n = packed.num_samples
    d = packed.diagonals
    shift = _u_shift(d)
    full = packed.halves.new_zeros(len(d), n * n)
    full[:, lower_indices(n, full.device)] = packed.halves
    full = full.view(-1, n, n)
    full = full + full.mT - shift[:, :, None] - shift[:, None, :]
    full.diagonal(dim1=-2, dim2=-1).copy_(d)
    return full


def _u_shift(diagonals: Tensor) -> Tensor:
    """What U-centering adds to row i, and to column i, of centered Gram matrices with ``(..., n)`` diagonals.

    Their rows sum to zero, so that it needs no sums but the trace.
    """
    n = diagonals.shape[-1]
    return diagonals / (n - 2) - diagonals.sum(-1, keepdim=True) / (2 * (n - 1) * (n - 2))


def half_vectors(packed: PackedGrams, *, unbiased: bool) -> Tensor:
    """Vectors whose inner products are the unnormalised HSIC of their layers, scaled.

    Returns:
        ``(L, p)``. With ``unbiased``, ``v_K . v_L = <U_K, U_L>_F / 2``; else ``<K, L>_F / 2``.
    """
    if unbiased:
        return packed.halves
    full = unpack(packed)
    lower = full.flatten(1).index_select(1, lower_indices(packed.num_samples, full.device))
    return torch.cat([lower, packed.diagonals / 2**0.5], dim=1)


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
    pairs = pair_products(x_vectors, y_vectors) * x_scales[:, None] * y_scales
    if y is None:
        # Taken from the pairs themselves: only then is the diagonal of CKA exactly 1.
        return pairs, pairs.diagonal(), pairs.diagonal()
    return pairs, squared_norms(x_vectors) * x_scales**2, squared_norms(y_vectors) * y_scales**2


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
    lower = product.new_zeros(len(product), n * n)
    lower.index_copy_(1, lower_indices(n, product.device), product[:, : n * (n - 1) // 2])
    matrix = lower.view(len(product), n, n)
    rows = matrix.sum(1, dtype=dtype) + matrix.sum(2, dtype=dtype)
    if not unbiased:
        rows = rows + 2 * product[:, n * (n - 1) // 2 :]
    return rows * (x.scales.to(dtype) * y.scales.to(dtype)).square()[:, None]


def pair_products(x: Tensor, y: Tensor) -> Tensor:
    """All inner products ``<., .>_F`` between the matrices of two sets of half vectors.

    Args:
        x: ``(L, p)`` half vectors.
        y: ``(R, p)`` half vectors.

    Returns:
        ``(L, R)``, accumulated in float64 (float32 on devices without it).
    """
    dtype = accumulator_dtype(x.device)
    total = torch.zeros(len(x), len(y), dtype=dtype, device=x.device)
    with full_precision(x.device.type):
        for block, other in zip(torch.split(x, _PAIR_BLOCK, dim=1), torch.split(y, _PAIR_BLOCK, dim=1), strict=True):
            left = block.to(dtype)
            total.addmm_(left, (left if y is x else other.to(dtype)).T)
    return 2 * total


def squared_norms(x: Tensor) -> Tensor:
    """``(L,)`` of ``<., .>_F`` of each matrix with itself, from its half vectors ``(L, p)``."""
    dtype = accumulator_dtype(x.device)
    total = torch.zeros(len(x), dtype=dtype, device=x.device)
    for block in torch.split(x, _PAIR_BLOCK, dim=1):
        total += block.to(dtype).square().sum(1)
    return 2 * total


def accumulator_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on the one device type that lacks it."""
    return torch.float32 if device.type == "mps" else torch.float64


@lru_cache(maxsize=8)
def lower_indices(n: int, device: torch.device) -> Tensor:
    """Flat indices ``(n(n-1)/2,)`` of the strictly lower triangle of an ``(n, n)`` matrix."""
    # A cached tensor made in inference mode could not be used outside it.
    with torch.inference_mode(False):
        rows, columns = torch.tril_indices(n, n, -1, device=device)
        indices: Tensor = rows * n + columns
        return indices


@lru_cache(maxsize=8)
def _lower_mask(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(n, n)``: 1 under the diagonal, else 0."""
    with torch.inference_mode(False):
        return torch.ones(n, n, dtype=dtype, device=device).tril(-1)
