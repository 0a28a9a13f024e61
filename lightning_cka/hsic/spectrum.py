"""The eigenvalues, the effective dimension and the effective rank of a layer, computed from its Gram matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cka.hsic.centering import doubly_centered
from lightning_cka.hsic.packed import PackedGrams, has_imprecise_distances
from lightning_cka.hsic.precision import accumulator_dtype


def effective_dimension_numerator(offsets: Tensor, squared_norms: Tensor) -> Tensor:
    """Return n(n-3) times an unbiased estimate of the squared trace of the features' covariance.

    Let D be the squared distances between samples. The estimate is the mean of D_ij D_kl / 4 over all distinct
    i, j, k, l, which is [(sum D)^2 - 4 sum_i (sum_j D_ij)^2 + 2 sum D^2] / (4 n (n-1) (n-2) (n-3)).

    With D_ij = -2 (U_ij + s_i + s_j) and rows of U that sum to zero, the bracket equals
    16 (n-2) (n-3) sum_{i != j} s_i s_j + 8 <U, U>.

    Args:
        offsets: s, of shape ``(L, n)``; see `lightning_cka.hsic.packed.PackedGrams`.
        squared_norms: <U, U>, of shape ``(L,)``.

    Returns:
        Numerators, ``(L,)``. Divided by ``squared_norms``, they are the effective dimensions.
    """
    n = offsets.shape[1]
    # Not (sum s)^2 - sum s^2: with a far outlier, the two terms agree up to rounding, and their difference is noise.
    mixed = 2 * (offsets[:, 1:] * offsets.cumsum(1)[:, :-1]).sum(1)
    return (4 * (n - 3) * mixed + 2 * squared_norms / (n - 2)) / (n - 1)


def effective_dimension_terms(packed: PackedGrams) -> Tensor:
    """Return numerators and denominators of the effective dimensions of L layers on one batch, ``(2, L)``.

    They are weighted by n(n-3), in float64, and have the scale of the features. A numerator is ``nan`` if an outlier
    hides the distances between the other samples in rounding errors.
    """
    dtype = accumulator_dtype(packed.offsets.device)
    norms, scales = packed.row_squares.to(dtype).sum(1), packed.scales.to(dtype) ** 4
    numerators = effective_dimension_numerator(packed.offsets.to(dtype), norms)
    numerators = numerators.where(~has_imprecise_distances(packed), torch.full_like(numerators, torch.nan))
    return torch.stack([numerators, norms]) * scales


def eigenvalue_shares(grams: Tensor) -> Tensor:
    """Return the part of all variance along each eigenvector of the doubly centered Gram matrices.

    Args:
        grams: Gram matrices ``(..., n, n)``, centered or not. Negative eigenvalues, which are rounding errors, count as
            zero.

    Returns:
        Shares ``(..., n - 1)`` float64 in descending order; ``nan`` for features that do not vary, or with ``nan``.
    """
    values = _eigenvalues(grams)[..., :-1]
    values = values.where(~(values <= 0), torch.zeros_like(values))  # nan stays.
    shares: Tensor = values / values.sum(-1, keepdim=True)
    return shares


def effective_rank(grams: Tensor) -> Tensor:
    """Return the exponential of the entropy of the normalised singular values of the centered features.

    Singular values are the square roots of the eigenvalues of the doubly centered Gram matrix. The effective rank is
    the number of directions if the features vary equally along all of them, and less otherwise. It does not change if
    the features are scaled. Rounding errors of a Gram matrix have about as large negative as positive eigenvalues.
    Those of at most twice the size of the most negative one therefore count as zero: their many small square roots
    would add up.

    Papers: Roy and Vetterli 2007 (https://ieeexplore.ieee.org/document/7098875); Garrido et al. 2023 (RankMe,
    https://arxiv.org/abs/2210.02885), who do not center the features.

    Args:
        grams: Gram matrices ``(..., n, n)``, centered or not.

    Returns:
        Effective ranks ``(...)`` float64: in [1, n - 1], 0 for features that do not vary, ``nan`` with ``nan``.
    """
    values = _eigenvalues(grams)
    rounding = -values[..., -1:].clamp(max=0)
    values = values[..., :-1]
    sizes = values.where(~(values <= 2 * rounding), torch.zeros_like(values)).sqrt()
    total = sizes.sum(-1)
    rank: Tensor = torch.special.entr(sizes / total[..., None]).sum(-1).exp()
    return rank.where(total != 0, torch.zeros_like(rank))


def _eigenvalues(grams: Tensor) -> Tensor:
    """Return the eigenvalues ``(..., n)`` float64 of the doubly centered matrices, descending; ``nan`` with ``nan``."""
    centered = doubly_centered(grams.double())
    is_finite = centered.isfinite().all(-1).all(-1)[..., None]
    values = torch.linalg.eigvalsh(centered.where(is_finite[..., None], torch.zeros_like(centered))).flip(-1)
    known: Tensor = values.where(is_finite, torch.full_like(values, torch.nan))
    return known
