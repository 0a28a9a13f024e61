"""Standard errors of ratios of sums over batches, and confidence intervals."""

from __future__ import annotations

import torch
from scipy.special import stdtrit
from torch import Tensor


def delta_method_error(
    sums: tuple[Tensor, Tensor, Tensor],
    squares: tuple[Tensor, Tensor, Tensor],
    products: tuple[Tensor, Tensor, Tensor],
    effective_batches: Tensor,
) -> Tensor:
    """Return the standard error of R = S_C / sqrt(S_A S_B) by the delta method.

    S_C, S_A and S_B are sums over batches of the per-batch values C, A and B.

    Args:
        sums: S_C ``(L, R)``, S_A ``(L,)`` and S_B ``(R,)``.
        squares: Sums over batches of C^2 ``(L, R)``, A^2 ``(L,)`` and B^2 ``(R,)``.
        products: Sums over batches of C A, C B and A B, each ``(L, R)``.
        effective_batches: Effective number of batches k_eff, a scalar.

    Returns:
        Standard errors, ``(L, R)``; ``nan`` or infinite for a single batch.
    """
    c, a, b = sums[0], sums[1][:, None], sums[2]
    cc, aa, bb = squares[0], squares[1][:, None], squares[2]
    ca, cb, ab = products
    norms = (a * b).sqrt()
    ratio = c / norms
    relative = aa / (4 * a**2) + bb / (4 * b**2) + ab / (2 * a * b)
    variance = cc / norms**2 + ratio**2 * relative - ratio * (ca / a + cb / b) / norms
    # In exact arithmetic this is a sum of squares, so a negative value is a rounding error of zero. nan stays nan.
    variance = variance.where(~(variance < 0), torch.zeros_like(variance))
    return (effective_batches / (effective_batches - 1) * variance).sqrt()


def check_level(level: float) -> None:
    """Raise a `ValueError` if a confidence level is not in (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), but is {level}")


def student_interval(value: Tensor, error: Tensor, effective_batches: float, level: float) -> tuple[Tensor, Tensor]:
    """Return a confidence interval from Student's t with ``effective_batches`` - 1 degrees of freedom.

    Args:
        value: Estimates.
        error: Standard errors, of the shape of ``value``.
        effective_batches: Effective number of batches.
        level: Confidence level in (0, 1).

    Returns:
        Lower and upper bounds, of the shape of ``value``.

    Raises:
        ValueError: The level is not in (0, 1).
    """
    check_level(level)
    half = error * float(stdtrit(effective_batches - 1, (1 + level) / 2))
    return value - half, value + half
