"""The Gram matrices of many layers on one batch, each entry kept once, and all HSICs between them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.grams import Workspace, exceeds_rounding, full_precision, lower_gram, u_centered

_PAIR_BLOCK = 4096

_LOST = 0.05
"""Largest relative error of a squared distance."""


class PackedGrams(NamedTuple):
    """The Gram matrices of L layers on one batch of n samples, each entry kept once.

    The U-centered off-diagonal part is what HSIC needs. The offsets beside it give the squared distances between
    samples, ``D_ij = -2 (U_ij + s_i + s_j)``, and so all else, without an outlier costing the other samples' digits.
    """

    halves: Tensor
    """(L, n(n-1)/2): strictly lower triangles of the U-centered Gram matrices, row by row."""
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


def empty_packed(
    num_layers: int, n: int, *, dtype: torch.dtype, device: torch.device, workspace: Workspace
) -> PackedGrams:
    """Room for the Gram matrices of ``num_layers`` layers on n samples, in the workspace."""
    return PackedGrams(
        workspace.matrix("halves", num_layers, n * (n - 1) // 2, dtype, device),
        workspace.matrix("offsets", num_layers, n, dtype, device),
        workspace.matrix("scales", 1, num_layers, dtype, device)[0],
        workspace.matrix("row_squares", num_layers, n, dtype, device),
    )


def pack(gram: Tensor, scale: Tensor, *, out: PackedGrams, layer: int) -> None:
    """Write one Gram matrix into row ``layer`` of ``out``.

    Args:
        gram: ``(n, n)`` Gram matrix, centered or not, of which the lower triangle is read; it is overwritten.
        scale: of the features that it is of.
        out: receives the result, of the same n.
        layer: the row of ``out``.
    """
    n = gram.shape[-1]
    diagonal = gram.diagonal().clone()
    # Not `tril_`, which wakes all threads for however small a matrix.
    mask = _lower_mask(n, gram.dtype, gram.device)
    gram.mul_(mask)
    before = torch.maximum(*map(torch.abs, gram.aminmax()))
    shift = _u_shift(gram.sum(0) + gram.sum(1))
    gram -= shift[:, None]
    gram -= shift
    gram.mul_(mask)
    after = torch.maximum(*map(torch.abs, gram.aminmax()))
    # A single sample apart from the others, and these all alike, leaves rounding errors. Beyond the range of
    # float32, the squared norm of a sample is infinite, and 0 times that is nan.
    gram.mul_(exceeds_rounding(after, before) + 0 * diagonal.sum())
    torch.index_select(gram.view(-1), 0, lower_indices(n, gram.device), out=out.halves[layer])
    out.offsets[layer] = shift - diagonal / 2
    out.scales[layer] = scale
    gram.square_()
    torch.add(gram.sum(0), gram.sum(1), out=out.row_squares[layer])


def pack_stack(grams: Tensor) -> PackedGrams:
    """Pack Gram matrices, centered or not.

    Args:
        grams: ``(L, n, n)`` symmetric matrices, n >= 4.

    Returns:
        Their packed form, in the dtype of ``grams``.
    """
    centered = u_centered(grams)
    halves = centered.flatten(1).index_select(1, lower_indices(grams.shape[-1], grams.device))
    diagonal = grams.diagonal(dim1=-2, dim2=-1)
    offsets = _u_shift(grams.sum(-1) - diagonal) - diagonal / 2
    return PackedGrams(halves, offsets, offsets.new_ones(len(offsets)), centered.square().sum(-1))


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
    d = diagonals(packed)
    return (d[:, :, None] + d[:, None, :] - squared_distances(packed)) / 2


def squared_distances(packed: PackedGrams) -> Tensor:
    """Squared distances ``(L, n, n)`` between samples, of features / scale; zero but for rounding where these agree."""
    n, s = packed.num_samples, packed.offsets
    full = packed.halves.new_zeros(len(s), n * n).index_copy_(1, lower_indices(n, s.device), packed.halves)
    full = full.view(len(s), n, n)
    full = -2 * (full + full.mT + s[:, :, None] + s[:, None, :])
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


def _u_shift(sums: Tensor) -> Tensor:
    """What U-centering takes from row i and from column i of matrices with off-diagonal row sums ``(..., n)``."""
    n = sums.shape[-1]
    return sums / (n - 2) - sums.sum(-1, keepdim=True) / (2 * (n - 1) * (n - 2))


def half_vectors(packed: PackedGrams, *, unbiased: bool) -> Tensor:
    """Vectors whose inner products are the unnormalised HSIC of their layers, scaled.

    Returns:
        ``(L, p)``. With ``unbiased``, ``v_K . v_L = <U_K, U_L>_F / 2``; else ``<K, L>_F / 2``.
    """
    if unbiased:
        return packed.halves
    n = packed.num_samples
    vectors = packed.halves.new_empty(len(packed.halves), n * (n + 1) // 2)
    for layer in range(len(vectors)):  # Whole matrices of all layers at once would take much memory.
        one = select_layers(packed, slice(layer, layer + 1))
        lower = unpack(one).view(-1).index_select(0, lower_indices(n, vectors.device))
        torch.cat([lower, diagonals(one)[0] / 2**0.5], out=vectors[layer])
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
    rows = (matrix.sum(1) + matrix.sum(2)).to(dtype)
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
