"""`GramStack`: the Gram matrices that forward hooks fill in, centered and packed some layers at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cka.hsic.folding import fold_in, half_size, row_sums
from lightning_cka.hsic.grams import Workspace, exceeds_rounding, folded_gram, gram_dtype, varies
from lightning_cka.hsic.packed import PackedGrams, pack_stack, u_centering_shift

_GROUP_ENTRIES_CPU = 2**19
"""Of the matrices that are centered at a time: they should stay in cache, and yet be worth an operation."""


_GROUP_ENTRIES_ACCELERATOR = 2**22


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
        shift = u_centering_shift(row_sums(corners.sum(1), folded))
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
