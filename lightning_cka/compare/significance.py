"""Which of many differences are significant: p-values from Student's t, corrected by the method of Holm."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from scipy.special import stdtr
from torch import Tensor

from lightning_cka.compare.intervals import too_few_batches
from lightning_cka.hsic.standard_error import check_level

ROUNDING = 1e-6
"""Differences of at most this size are never significant: float32 Gram matrices have rounding errors of this order."""


def significant_cells(
    matrix: Tensor, error: Tensor, effective_batches: float, families: Iterable[Tensor], level: float
) -> Tensor:
    """Return which differences are not zero, ``(L, R)`` bool.

    Args:
        matrix: Differences, ``(L, R)``.
        error: Their standard errors, ``(L, R)``. Where one is ``nan``, nothing is tested, and the result is False.
        effective_batches: Effective number of batches. If it is below about four, nothing is tested.
        families: Cells ``(L, R)`` of each family of tests. Each family has its own correction.
        level: One minus the familywise error rate, in (0, 1).

    Raises:
        ValueError: The level is outside (0, 1).
    """
    check_level(level)
    found = torch.zeros(matrix.shape, dtype=torch.bool, device="cpu")
    if too_few_batches(effective_batches):
        return found
    values = _p_values(matrix, error, effective_batches)
    for cells in families:
        found[cells] = holm(values[cells], 1 - level)
    return found


def _p_values(matrix: Tensor, error: Tensor, effective_batches: float) -> Tensor:
    """Return the two-sided p-values; ``nan`` where a difference or its error is."""
    size = matrix.abs()
    is_rounding = size <= ROUNDING  # Also 0 / 0, as for layers that are frozen.
    statistic = (size / error).where(~is_rounding, error * 0)
    return 2 * torch.from_numpy(stdtr(effective_batches - 1, -statistic.numpy()))


def holm(values: Tensor, error_rate: float) -> Tensor:
    """Return which p-values are significant. Paper: Holm 1979 (https://www.jstor.org/stable/4615733).

    Args:
        values: p-values, ``(m,)``. Those that are ``nan`` are not tested, and do not count.
        error_rate: Probability that at least one true null hypothesis is among the significant ones.
    """
    tested = ~values.isnan()
    ordered, order = values[tested].sort()
    limits = error_rate / torch.arange(len(ordered), 0, -1, dtype=torch.float64, device="cpu")
    passed = (ordered <= limits).long().cumprod(0).bool()  # The first one that fails ends the sequence.
    among_tested = torch.empty_like(passed)
    among_tested[order] = passed
    found = torch.zeros(len(values), dtype=torch.bool, device="cpu")
    found[tested] = among_tested
    return found
