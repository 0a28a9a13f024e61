"""Squared distances whose order counts: with the size of their rounding errors, and with ties where they are equal."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.hsic.distance_errors import packed_variances
from lightning_cka.hsic.kernel_grams import precise_distances
from lightning_cka.hsic.packed import PackedGrams

_GRID = 4.0
"""Distance of the grid's points, in units of the typical rounding error."""


class OrderedDistances(NamedTuple):
    """Squared distances of L layers on one batch of n samples."""

    squared: Tensor
    """``(L, n, n)`` in float64. Distances that are equal up to typical rounding errors are equal."""
    errors: Tensor
    """``(L, n)``: D_ij has an error of at most about ``errors``_i + ``errors``_j."""

    @classmethod
    def of(cls, grams: PackedGrams) -> OrderedDistances:
        """Return the distances of packed Gram matrices.

        They are rounded to a grid of powers of 2. Without it, rounding errors would order distances that are equal, as
        many are between samples with whole numbers or with many zeros.
        """
        squared = precise_distances(grams)
        variances = packed_variances(grams, squared)
        errors = (variances.common + variances.factors.square() + 2 * variances.shifts).sqrt()
        errors = torch.maximum(errors, variances.floors)
        typical = errors.median(1).values
        grid = torch.exp2((_GRID * typical).log2().round())[:, None, None]
        grid = grid.where((grid > 0) & grid.isfinite(), torch.ones_like(grid))
        return cls(squared.div_(grid).round_().mul_(grid), errors)
