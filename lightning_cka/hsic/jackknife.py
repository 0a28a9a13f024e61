"""Delete-one jackknife over batches: standard errors of CKA, of its mean and of differences.

CKA is a ratio of sums over batches. The jackknife computes it again without each batch in turn. The spread of these
values gives the standard error. The delta method replaces each value by a linear approximation, and its errors are too
small where single batches dominate the sums.

Paper: Efron and Stein 1981 (https://doi.org/10.1214/aos/1176345462): the jackknife is on average not too small.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MAX_ENTRIES = 2**20
"""Largest number of values that are computed at a time."""


def without_each_batch(pairs: Tensor, layers: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """Return CKA with all batches, and without each batch in turn.

    Args:
        pairs: <K, L> of each batch, ``(k, L, R)``, for k batches, L layers and R layers of the reference.
        layers: <K, K> of each batch, ``(k, L)``.
        references: <L, L> of each batch, ``(k, R)``.

    Returns:
        CKA ``(L, R)``, and CKA without batch i in row i of ``(k, L, R)``; ``nan`` where the other batches have no
        variance.
    """
    value = _cka(pairs.sum(0), layers.sum(0), references.sum(0))
    left_out = torch.empty_like(pairs)
    other_layers, other_references = sums_of_others(layers), sums_of_others(references)
    step = max(1, _MAX_ENTRIES // max(1, pairs[:, :1].numel()))
    for start in range(0, pairs.shape[1], step):
        rows = slice(start, start + step)
        left_out[:, rows] = _cka(sums_of_others(pairs[:, rows]), other_layers[:, rows], other_references)
    return value, left_out


def _cka(pairs: Tensor, layers: Tensor, references: Tensor) -> Tensor:
    return pairs / (layers[..., :, None] * references[..., None, :]).sqrt()


def sums_of_others(values: Tensor) -> Tensor:
    """Return in row i the sum of all rows but row i.

    It adds the rows. Subtracting row i from the sum of all rows would leave rounding errors where row i dominates.

    Args:
        values: Values of each batch, ``(k, ...)``.
    """
    if len(values) < 2:
        return torch.zeros_like(values)
    others = torch.empty_like(values)
    others[0] = 0
    others[1:] = values[:-1].cumsum(0)
    others[:-1] += values[1:].flip(0).cumsum(0).flip(0)
    return others


def jackknife_error(value: Tensor, left_out: Tensor, weights: Tensor) -> Tensor:
    """Return the standard error of an estimate, sqrt((k_eff - 1) / k_eff sum_i (without_i - value)^2).

    For k batches of equal size, k_eff is k, and this is the usual jackknife. For batches of unequal size, it is nearly
    unbiased, because the weight of a batch in HSIC grows faster than the precision of its value.

    Args:
        value: Estimate with all batches, ``(...)``.
        left_out: Estimate without each batch, ``(k, ...)``.
        weights: Weights of the batches in the sums, ``(k,)``, or ``(k, ...)`` if they differ between the estimates. A
            batch that is not part of an estimate has weight 0 there, and leaving it out must not change the estimate.

    Returns:
        Standard errors, ``(...)``; ``nan`` for fewer than 2 batches.
    """
    if len(left_out) < 2:
        return torch.full_like(value, torch.nan)
    factor = 1 - 1 / _effective_batches(weights)
    return ((left_out - value).square().sum(0) * factor).sqrt()


def effective_batches(weights: Tensor) -> float:
    """Return k_eff = (sum w)^2 / sum w^2, the number of batches of equal weight with the same variance.

    Args:
        weights: Weights of the batches, ``(k,)``; k may be 0, which gives ``nan``.
    """
    return float(_effective_batches(weights))


def _effective_batches(weights: Tensor) -> Tensor:
    return weights.sum(0) ** 2 / weights.square().sum(0)
