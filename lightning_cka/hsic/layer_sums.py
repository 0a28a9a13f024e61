"""What one batch contributes to the diagnostics of its layers, computed once for each model."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.hsic.packed import PackedGrams, diagonals, row_states
from lightning_cka.hsic.spectrum import effective_dimension_terms

TOP_SAMPLES = 3
"""Number of samples that are listed for each layer."""


class LayerSums(NamedTuple):
    """Sums over the n samples of one batch, for each of L layers."""

    states: Tensor
    """State of each sample in each layer, ``(L, n)``; see `row_states`."""
    sums: Tensor
    """Numerator and denominator of the effective dimension, weighted by n(n-3); <U, U>; and the trace, ``(4, L)``."""
    largest: Tensor
    """The k largest contributions of samples to the trace and to <U, U>, ``(2, L, k)``."""
    places: Tensor
    """Places of these samples in the batch, ``(2, L, k)``."""


def layer_sums(linear: PackedGrams, grams: PackedGrams, like: Tensor) -> LayerSums:
    """Return the sums of one batch.

    Args:
        linear: Linear Gram matrices of all layers, for the effective dimension.
        grams: Gram matrices of the kernel, for the others.
        like: A tensor of the sums' dtype and device.
    """
    scale = grams.scales.to(like)[:, None]
    d = diagonals(grams._replace(offsets=grams.offsets.to(like))) * scale**2
    rows = grams.row_squares.to(like) * scale**4
    rows = rows.where(~grams.offsets.isnan(), torch.full_like(rows, torch.nan))  # There, they are `row_states`.
    of_dimension = effective_dimension_terms(linear).to(like)
    sums = torch.cat([of_dimension, torch.stack([rows.sum(1), d.sum(1)])])
    return LayerSums(row_states(linear), sums, *torch.stack([d, rows]).topk(TOP_SAMPLES, dim=-1))


class FirstSums:
    """The sums of one batch of linear Gram matrices, computed when they are first asked for.

    A reference's batch is compared with the live model at every epoch.
    """

    def __init__(self) -> None:
        self._found: LayerSums | None = None

    def __reduce__(self) -> tuple[type[FirstSums], tuple[()]]:
        """Copies and pickles, which go to other processes, compute them again."""
        return FirstSums, ()

    def of(self, grams: PackedGrams, like: Tensor) -> LayerSums:
        """Return the sums; see `layer_sums`. The Gram matrices must be the same ones in each call, on any device."""
        if self._found is None:
            self._found = layer_sums(grams, grams, like)
        states, *sums = self._found
        return LayerSums(states.to(grams.offsets.device), *(part.to(like.device) for part in sums))
