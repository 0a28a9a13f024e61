"""`GramStack`: collects the features of one batch layer by layer, and returns their packed Gram matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cka.hsic.centering import exceeds_rounding
from lightning_cka.hsic.folding import fold, fold_in, half_size, row_sums
from lightning_cka.hsic.grams import Workspace, folded_gram, gram_dtype, has_variance
from lightning_cka.hsic.packed import (
    MISSING,
    NOT_FINITE,
    TOO_FAR,
    USABLE,
    PackedGrams,
    pack_stack,
    u_centering_shift,
)
from lightning_cka.hsic.precision import accumulator_dtype

# Number of matrix entries that are centered at a time. Small groups fit the cache; large ones need fewer operations.
_GROUP_ENTRIES_CPU = 2**19
_GROUP_ENTRIES_ACCELERATOR = 2**22


class GramStack:
    """The Gram matrices of the layers of one batch of n samples.

    `add` takes one layer's features and computes its Gram matrix. Matrices are centered and packed in groups of
    consecutive layers. `packed` returns them all.

    Args:
        num_layers: Number of layers L.
        n: Batch size, at least 4.
        dtype: Dtype of the Gram matrices, float32 or float64. It becomes float64 with the first float64 features.
        device: Device of the Gram matrices.
        workspace: Memory of all results. The next stack of the same workspace overwrites them.
    """

    def __init__(
        self, num_layers: int, n: int, *, dtype: torch.dtype, device: torch.device, workspace: Workspace
    ) -> None:
        self._n = n
        self._workspace = workspace
        entries = _GROUP_ENTRIES_CPU if device.type == "cpu" else _GROUP_ENTRIES_ACCELERATOR
        self._group = max(1, min(num_layers, entries // n**2))
        # Layers from start to stop have matrices that are not centered yet. `folded_gram` returned these two of each.
        self._start = self._stop = 0
        self._scales: list[Tensor] = []
        self._roundings: list[Tensor] = []
        self._use_buffers(
            PackedGrams(
                workspace.matrix("halves", num_layers, n * half_size(n), dtype, device),
                workspace.matrix("offsets", num_layers, n, dtype, device),
                workspace.matrix("scales", 1, num_layers, dtype, device)[0],
                workspace.matrix("row_squares", num_layers, n, dtype, device),
            )
        )

    def _use_buffers(self, packed: PackedGrams) -> None:
        n, m = self._n, self._n - half_size(self._n)
        self._packed = packed
        # `folded_gram` writes two parts. All layers have their own columns; the corners are those of one group.
        self._folded = packed.halves.view(len(packed.halves), n, n - m)
        corners = self._workspace.matrix("corners", self._group, m * m, packed.halves.dtype, packed.halves.device)
        self._corners = corners.view(self._group, m, m)

    def add(self, layer: int, features: Tensor) -> None:
        """Compute the Gram matrix of one layer.

        Args:
            layer: Index of the layer.
            features: Features, ``(n, ...)``, on any device.

        Raises:
            TypeError: The features are not a real floating-point tensor.
        """
        if features.dtype == torch.float64 != self._folded.dtype:
            self._center()
            self._use_buffers(PackedGrams(*(part.to(torch.float64) for part in self._packed)))
        if layer != self._stop or layer - self._start == self._group:
            self._center()
            self._start = self._stop = layer
        folded, corner = self._folded[layer], self._corners[layer - self._start]
        if features.device == folded.device:
            scale, rounding = folded_gram(features, folded, corner, self._workspace)
        else:
            # Compute on the layer's device, and copy the Gram matrix, which is small.
            dtype = torch.float32 if folded.dtype == torch.float32 else accumulator_dtype(features.device)
            columns, rest = (
                part.new_empty(part.shape, dtype=dtype, device=features.device) for part in (folded, corner)
            )
            scale, rounding = folded_gram(features, columns, rest, self._workspace)
            folded.copy_(columns)
            corner.copy_(rest)
            scale, rounding = scale.to(folded), rounding.to(folded)
        self._scales.append(scale)
        self._roundings.append(rounding)
        self._stop = layer + 1

    def set_undefined(self, layer: int) -> None:
        """Set the Gram matrix of a layer without features to ``nan``."""
        self._center()
        values = PackedGrams(torch.nan, torch.nan, 0.0, MISSING)  # type: ignore[arg-type]  # One number per tensor.
        for part, value in zip(self._packed, values, strict=True):
            part[layer] = value

    def packed(self) -> PackedGrams:
        """Return the Gram matrices of all layers."""
        self._center()
        return self._packed

    def _center(self) -> None:
        """Center and pack the matrices of the current group."""
        chosen, n = slice(self._start, self._stop), self._n
        self._start = self._stop
        if not self._scales:
            return
        folded, corners = self._folded[chosen], self._corners[: len(self._scales)]
        h = folded.shape[2]
        diagonals = (folded.diagonal(dim1=1, dim2=2), corners.diagonal(dim1=1, dim2=2))
        diagonal = torch.cat(diagonals, 1)
        states = _row_states(diagonal, folded)  # Before centering, which spreads one nan to all rows.
        # Samples that are not finite are left out of the centering, so that the others can be compared without them.
        is_bad = None if states is None else states != USABLE
        if is_bad is not None:
            _fill_samples(folded, corners, is_bad, 0.0)
            diagonal = diagonal.masked_fill(is_bad, 0.0)
        for each in diagonals:
            each.zero_()
        # Fewer than four usable samples cannot be compared. Their number must only not divide by zero.
        counts = None if is_bad is None else (~is_bad).sum(1, keepdim=True).clamp(min=4)
        shift = u_centering_shift(row_sums(corners.sum(1), folded), counts)
        for matrices, rows, columns in ((folded, shift, shift[:, :h]), (corners, shift[:, h:], shift[:, h:])):
            matrices -= rows[:, :, None]
            matrices -= columns[:, None]
        for each in diagonals:  # The subtraction has changed them.
            each.zero_()
        if is_bad is not None:
            _fill_samples(folded, corners, is_bad, 0.0)
        squares = row_sums(corners.square().sum(1), folded.square())
        # If all samples but one are equal, U is zero and only rounding errors of the subtraction remain: in each of
        # the n entries of a row, at most those of twice the largest shift. Such layers are multiplied by 0.
        trace = diagonal.sum(1)
        subtracted = 2 * n**0.5 * shift.abs().amax(1)
        # If a squared norm overflows float32, the trace is infinite, and 0 times the trace makes the layer nan.
        factor = exceeds_rounding(squares.amax(1).sqrt(), subtracted) + 0 * trace
        fold_in(folded, corners)
        folded *= factor[:, None, None]
        torch.mul(squares, factor[:, None], out=self._packed.row_squares[chosen])
        torch.sub(shift, diagonal / 2, out=self._packed.offsets[chosen])
        if states is not None:
            self._mark_bad(chosen, states, 0 * trace)
        is_variable = has_variance(trace, n * torch.stack(self._roundings))
        torch.mul(torch.stack(self._scales), is_variable, out=self._packed.scales[chosen])
        self._scales.clear()
        self._roundings.clear()

    def _mark_bad(self, chosen: slice, states: Tensor, undefined: Tensor) -> None:
        """Set rows and columns of samples that are not usable to ``nan``, and keep the states in undefined layers.

        Args:
            chosen: The layers.
            states: State of each sample, ``(L, n)``.
            undefined: ``nan`` for layers that are undefined as a whole, else 0, ``(L,)``.
        """
        is_bad = states != USABLE
        is_gone = fold((is_bad[:, :, None] | is_bad[:, None]).to(self._folded)) > 0
        folded, squares = self._folded[chosen], self._packed.row_squares[chosen]
        folded.masked_fill_(is_gone.view(folded.shape), torch.nan)
        undefined = undefined[:, None].expand_as(is_bad).masked_fill(is_bad, torch.nan)
        self._packed.offsets[chosen] += undefined
        torch.where(undefined.isnan(), states, squares, out=squares)


def _fill_samples(folded: Tensor, corners: Tensor, chosen: Tensor, value: float) -> None:
    """Fill the rows and columns of some samples ``(L, n)`` in both parts of a Gram matrix, in place."""
    h = folded.shape[2]
    folded.masked_fill_(chosen[:, :, None] | chosen[:, None, :h], value)
    corners.masked_fill_(chosen[:, h:, None] | chosen[:, None, h:], value)


def _row_states(diagonal: Tensor, folded: Tensor) -> Tensor | None:
    """Return the state of each sample, ``(L, n)``, which counts only in layers that are undefined; None: all usable.

    Args:
        diagonal: Diagonals of the Gram matrices, ``(L, n)``.
        folded: First columns of the Gram matrices, not centered yet, ``(L, n, h)``.
    """
    # n entries of this size do not overflow their sum, also where it is rounded. The comparison is False for nan.
    is_usable = diagonal <= 0.99 * torch.finfo(diagonal.dtype).max / diagonal.shape[1]
    if bool(is_usable.all()):
        return None
    # The square of a distant sample overflows, but its product with a usable sample is finite.
    usable = is_usable[:, : folded.shape[2]].to(torch.int8).argmax(1)
    products = folded.gather(2, usable[:, None, None].expand(-1, folded.shape[1], 1))[:, :, 0]
    states = torch.where(products.isfinite(), TOO_FAR, NOT_FINITE).to(diagonal)
    return states.where(~is_usable, torch.full_like(states, USABLE))


def pack_features(features: Sequence[Tensor], dtype: torch.dtype | None = None) -> PackedGrams:
    """Return the packed linear Gram matrices of L layers on one batch.

    Args:
        features: Features of each layer, ``(n, ...)``.
        dtype: Dtype of the Gram matrices; None: float64 if any of the features are float64, else float32.

    Returns:
        Packed Gram matrices.
    """
    stack = GramStack(
        len(features),
        len(features[0]),
        dtype=dtype or gram_dtype(*features),
        device=features[0].device,
        workspace=Workspace(),
    )
    for layer, tensor in enumerate(features):
        stack.add(layer, tensor)
    return stack.packed()


def pack_precomputed(grams: Sequence[Tensor]) -> PackedGrams:
    """Return Gram matrices that a user computed, in packed form.

    Args:
        grams: Gram matrix of each layer, ``(n, n)``.

    Returns:
        Packed Gram matrices; float64 if any of the matrices are float64, else float32.

    Raises:
        ValueError: A matrix is not square or not symmetric.
    """
    grams = [gram.detach() for gram in grams]
    for gram in grams:
        if gram.shape != (len(gram), len(gram)):
            raise ValueError(f"kernel='precomputed' takes (n, n) Gram matrices, but got {tuple(gram.shape)}")
        if not torch.allclose(gram, gram.T, rtol=1e-3, atol=1e-3 * float(gram.abs().max()), equal_nan=True):
            raise ValueError("kernel='precomputed' takes symmetric Gram matrices, but got one that is not")
    return pack_stack(torch.stack([gram.to(gram_dtype(*grams)) for gram in grams]))
