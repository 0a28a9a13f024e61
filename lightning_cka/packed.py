"""The Gram matrices of many layers on one batch, each entry kept once, and all HSICs between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.folding import fold, fold_in, folded_row_sums, half_size, row_sums, unfold
from lightning_cka.grams import (
    Workspace,
    exceeds_rounding,
    folded_gram,
    full_precision,
    gram_dtype,
    u_centered,
    varies,
)

_PAIR_BLOCK = 2048

_GROUP_ENTRIES_CPU = 2**19
"""Of the matrices that are centered at a time: they should stay in cache, and yet be worth an operation."""

_GROUP_ENTRIES_ACCELERATOR = 2**22

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


class GramStack:
    """Makes the Gram matrices of the layers of one batch of n samples, and centers and packs some of them at a time.

    Args:
        num_layers: L.
        n: at least 4.
        dtype: becomes float64 once features are.
        device: of the Gram matrices.
        workspace: in which all is made: the next stack of the same n has the same memory.
    """

    def __init__(
        self, num_layers: int, n: int, *, dtype: torch.dtype, device: torch.device, workspace: Workspace
    ) -> None:
        self._n = n
        self._workspace = workspace
        entries = _GROUP_ENTRIES_CPU if device.type == "cpu" else _GROUP_ENTRIES_ACCELERATOR
        self._group = max(1, min(num_layers, entries // n**2))
        # Layers whose matrices are not centered yet, with what `folded_gram` said of each.
        self._start = self._stop = 0
        self._scales: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._take(
            PackedGrams(
                workspace.matrix("halves", num_layers, n * half_size(n), dtype, device),
                workspace.matrix("offsets", num_layers, n, dtype, device),
                workspace.matrix("scales", 1, num_layers, dtype, device)[0],
                workspace.matrix("row_squares", num_layers, n, dtype, device),
            )
        )

    def _take(self, packed: PackedGrams) -> None:
        n, m = self._n, self._n - half_size(self._n)
        self._packed = packed
        # The two parts that `folded_gram` makes: of all layers, and of those that are not centered yet.
        self._folded = packed.halves.view(len(packed.halves), n, n - m)
        corners = self._workspace.matrix("corners", self._group, m * m, packed.halves.dtype, packed.halves.device)
        self._corners = corners.view(self._group, m, m)

    def add(self, layer: int, features: Tensor) -> None:
        """Take one layer's features ``(n, ...)``."""
        if features.dtype == torch.float64 != self._folded.dtype:
            self._center()
            self._take(PackedGrams(*(part.to(torch.float64) for part in self._packed)))
        if layer != self._stop or layer - self._start == self._group:
            self._center()
            self._start = self._stop = layer
        folded, corner = self._folded[layer], self._corners[layer - self._start]
        if features.device == folded.device and gram_dtype(features) == folded.dtype:
            scale, square = folded_gram(features, folded, corner, self._workspace)
        else:
            # In the layer's own precision. Of a model on several devices, Gram matrices travel, and not activations.
            columns, rest = (
                part.new_empty(part.shape, dtype=gram_dtype(features), device=features.device)
                for part in (folded, corner)
            )
            scale, square = folded_gram(features, columns, rest, self._workspace)
            scale = scale * varies(columns.trace() + rest.trace(), self._n * square)
            folded.copy_(columns)
            corner.copy_(rest)
            scale, square = scale.to(folded), square.to(folded)
        self._scales.append(scale)
        self._squares.append(square)
        self._stop = layer + 1

    def set_undefined(self, layer: int) -> None:
        """There are no features of that layer."""
        self._center()
        for part in self._packed:
            part[layer] = torch.nan

    def packed(self) -> PackedGrams:
        """The Gram matrices of all layers."""
        self._center()
        return self._packed

    def _center(self) -> None:
        """Center and pack what is not yet."""
        chosen, n = slice(self._start, self._stop), self._n
        self._start = self._stop
        if not self._scales:
            return
        folded, corners = self._folded[chosen], self._corners[: len(self._scales)]
        h = folded.shape[2]
        diagonals = (folded.diagonal(dim1=1, dim2=2), corners.diagonal(dim1=1, dim2=2))
        diagonal = torch.cat(diagonals, 1)
        for each in diagonals:
            each.zero_()
        shift = _u_shift(row_sums(corners.sum(1), folded))
        for matrices, rows, columns in ((folded, shift, shift[:, :h]), (corners, shift[:, h:], shift[:, h:])):
            matrices -= rows[:, :, None]
            matrices -= columns[:, None]
        for each in diagonals:
            each.zero_()
        squares = row_sums(corners.square().sum(1), folded.square())
        # A single sample apart from the others, and these all alike, leaves rounding errors of what was taken away: in
        # each of the n entries of a row, at most of twice the largest shift. Beyond the range of float32, the squared
        # norm of a sample is infinite, and 0 times that is nan.
        trace = diagonal.sum(1)
        taken = 2 * n**0.5 * shift.abs().amax(1)
        factor = exceeds_rounding(squares.amax(1).sqrt(), taken) + 0 * trace
        fold_in(folded, corners)
        folded *= factor[:, None, None]
        torch.mul(squares, factor[:, None], out=self._packed.row_squares[chosen])
        torch.sub(shift, diagonal / 2, out=self._packed.offsets[chosen])
        has_variance = varies(trace, n * torch.stack(self._squares))
        torch.mul(torch.stack(self._scales), has_variance, out=self._packed.scales[chosen])
        self._scales.clear()
        self._squares.clear()


def pack_stack(grams: Tensor) -> PackedGrams:
    """Pack Gram matrices, centered or not.

    Args:
        grams: ``(L, n, n)`` symmetric matrices, n >= 4.

    Returns:
        Their packed form, in the dtype of ``grams``.
    """
    centered = u_centered(grams)
    diagonal = grams.diagonal(dim1=-2, dim2=-1)
    offsets = _u_shift(grams.sum(-1) - diagonal) - diagonal / 2
    return PackedGrams(fold(centered), offsets, offsets.new_ones(len(offsets)), centered.square().sum(-1))


def pack_features(features: Sequence[Tensor]) -> PackedGrams:
    """The linear Gram matrices of L layers' features ``(n, ...)``, in float32, or float64 if any of them are."""
    stack = GramStack(
        len(features), len(features[0]), dtype=gram_dtype(*features), device=features[0].device, workspace=Workspace()
    )
    for layer, tensor in enumerate(features):
        stack.add(layer, tensor)
    return stack.packed()


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
    return pack_stack(torch.stack([gram.to(gram_dtype(*grams)) for gram in grams]))


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


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's memory on a device, without waiting where that is safe: CUDA has read pageable memory."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def accumulator_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on the one device type that lacks it."""
    return torch.float32 if device.type == "mps" else torch.float64
