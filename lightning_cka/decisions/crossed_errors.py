"""Errors of a mean over pairs of seeds that are compared on the same probe batches.

Seeds and batches both vary, and each pair of seeds is compared on each batch. The jackknife over seeds gives one error,
that over batches the other, and their squares are added up. What depends on both seed and batch counts twice, so that
intervals are rather too wide. Papers: Owen 2007 (https://doi.org/10.1214/07-AOAS122) on data that are crossed like
these; Efron and Stein 1981 (https://doi.org/10.1214/aos/1176345462) on the jackknife, also of means over pairs.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from lightning_cka.hsic.jackknife import jackknife_error
from lightning_cka.hsic.standard_error import check_level

LEAST_SEEDS = 3
"""Smallest number of seeds with an interval: with two, there is one pair, which tells nothing about other pairs."""


def seed_errors(matrices: Tensor) -> Tensor:
    """Return the standard errors of the mean over pairs of seeds, by leaving out each seed in turn.

    Args:
        matrices: A symmetric value for each pair of S seeds, ``(L, S, S)``; the diagonals do not matter.

    Returns:
        ``(L,)``; ``nan`` for fewer than 3 seeds.
    """
    seeds = matrices.shape[1]
    if seeds < LEAST_SEEDS:
        return matrices.new_full((len(matrices),), torch.nan)
    of_pairs = matrices.masked_fill(torch.eye(seeds, dtype=torch.bool, device=matrices.device), 0.0)
    total = of_pairs.sum((1, 2))
    without = (total[:, None] - 2 * of_pairs.sum(2)) / ((seeds - 1) * (seeds - 2))
    mean = total / (seeds * (seeds - 1))
    return jackknife_error(mean, without.T, torch.ones(seeds, dtype=matrices.dtype, device=matrices.device))


def half_widths(errors: tuple[Tensor, Tensor], numbers: tuple[float, float], level: float) -> Tensor:
    """Return half the widths of confidence intervals whose two errors are independent.

    They are from Student's t with the degrees of freedom of Welch and Satterthwaite.

    Args:
        errors: Standard errors over batches and over seeds, ``(L,)`` each.
        numbers: Effective number of batches, and number of seeds.
        level: Level of the intervals, in (0, 1).

    Raises:
        ValueError: The level is outside (0, 1).
    """
    check_level(level)
    squares = [error.square() for error in errors]
    both = squares[0] + squares[1]
    parts = [square.square() / (number - 1) for square, number in zip(squares, numbers, strict=True)]
    freedom = both.square() / (parts[0] + parts[1])
    quantiles = torch.from_numpy(np.asarray(stdtrit(freedom.numpy(), (1 + level) / 2)))
    # Without any error, the degrees of freedom are 0 / 0.
    return torch.where(both == 0, both, both.sqrt() * quantiles)
