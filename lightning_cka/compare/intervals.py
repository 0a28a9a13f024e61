"""Confidence intervals over probe batches, and a sentence where there are too few batches for one."""

from __future__ import annotations

import warnings
from math import isnan
from typing import TYPE_CHECKING

import torch
from scipy.special import stdtrit
from torch import Tensor

from lightning_cka.hsic.standard_error import student_interval

if TYPE_CHECKING:
    from lightning_cka.compare.result import CKAResult

MIN_EFFECTIVE_BATCHES = 3.5
"""Smallest effective number of batches with an interval. Below it, the error itself is hardly known: with two unequal
batches, Student's t can be in the thousands. Four batches of nearly equal size pass."""

_MOST_BATCHES = 10**5
"""Numbers of batches above this one are not named."""


def too_few_batches(effective_batches: float | None) -> str:
    """Return a sentence that says why there is no interval; "" if there is one, or if the number is not known."""
    if effective_batches is None or effective_batches >= MIN_EFFECTIVE_BATCHES:
        return ""
    number = "no" if isnan(effective_batches) else f"{effective_batches:.1f}"
    return (
        f"no confidence interval: the probe set has {number} effective batches, but an interval needs about four "
        "batches of equal size"
    )


def warn_if_too_few(effective_batches: float) -> None:
    """Warn at the caller of the calling function if there are too few batches for an interval."""
    if message := too_few_batches(effective_batches):
        warnings.warn(message, stacklevel=3)


def interval(value: Tensor, error: Tensor, effective_batches: float, level: float) -> tuple[Tensor, Tensor]:
    """Return confidence intervals from Student's t; ``nan`` for fewer than about four effective batches.

    Args:
        value: Estimates.
        error: Standard errors, of the shape of ``value``.
        effective_batches: Effective number of batches.
        level: Confidence level in (0, 1).

    Raises:
        ValueError: The level is not in (0, 1).
    """
    if too_few_batches(effective_batches):
        error, effective_batches = torch.full_like(error, torch.nan), MIN_EFFECTIVE_BATCHES
    return student_interval(value, error, effective_batches, level)


def batches_to_decide(half_width: float, effective_batches: float, distance: float, level: float) -> int | None:
    """Return about how many batches of the same size an interval needs, so that a limit lies outside it.

    It assumes that the value stays as it is, and that errors fall with the root of the number of batches.

    Args:
        half_width: Half of the width of the interval now.
        effective_batches: Effective number of batches now.
        distance: Distance of the value from the limit, at least 0.
        level: Level of the interval.

    Returns:
        The number, at least 4. None: it is too large to be named, or the interval is ``nan``.
    """
    error = half_width / float(stdtrit(effective_batches - 1, (1 + level) / 2)) * effective_batches**0.5
    number = 4
    while not error / number**0.5 * float(stdtrit(number - 1, (1 + level) / 2)) < distance:
        number += max(1, number // 20)
        if number > _MOST_BATCHES:
            return None
    return number


def interval_of_result(result: CKAResult, level: float) -> tuple[Tensor, Tensor]:
    """Return `interval` of a result's values, each ``(L, R)``; ``nan`` if its standard errors are not known.

    `CKAResult.confidence_interval` is the same for users: it raises and warns instead.
    """
    if result.standard_error is None or result.effective_batches is None:
        unknown = torch.full_like(result.matrix, torch.nan)
        return unknown, unknown
    return interval(result.matrix, result.standard_error, result.effective_batches, level)
