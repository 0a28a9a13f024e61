"""Standard errors of ratios of sums over batches, and intervals from them."""

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
    """Standard error of R = S_C / sqrt(S_A S_B), from sums over batches of C, A and B and of their products.

    Args:
        sums: S_C ``(L, R)``, S_A ``(L,)``, S_B ``(R,)``.
        squares: of C^2, A^2, B^2, likewise.
        products: of C A, C B and A B, each ``(L, R)``.
        effective_batches: k_eff, scalar.

    Returns:
        ``(L, R)``; ``nan`` or infinite for a single batch.
    """
    c, a, b = sums[0], sums[1][:, None], sums[2]
    cc, aa, bb = squares[0], squares[1][:, None], squares[2]
    ca, cb, ab = products
    norms = (a * b).sqrt()
    ratio = c / norms
    relative = aa / (4 * a**2) + bb / (4 * b**2) + ab / (2 * a * b)
    variance = cc / norms**2 + ratio**2 * relative - ratio * (ca / a + cb / b) / norms
    # A sum of squares in exact arithmetic, so that below zero it is zero but for rounding.
    variance = variance.where(~(variance < 0), torch.zeros_like(variance))
    return (effective_batches / (effective_batches - 1) * variance).sqrt()


def student_interval(value: Tensor, error: Tensor, effective_batches: float, level: float) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds from Student's t with ``effective_batches`` - 1 degrees of freedom.

    Raises:
        ValueError: the level is not in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), but is {level}")
    half = error * float(stdtrit(effective_batches - 1, (1 + level) / 2))
    return value - half, value + half
