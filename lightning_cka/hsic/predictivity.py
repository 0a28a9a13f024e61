"""Linear predictivity: how well one representation is predicted from another, from doubly centered Gram matrices."""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor

from lightning_cka.hsic.arrays import Array, to_tensor
from lightning_cka.hsic.centering import doubly_centered
from lightning_cka.hsic.grams import check_gram_pair
from lightning_cka.hsic.precision import accumulator_dtype

MIN_SAMPLES = 3
"""Fewest samples of a regression that leaves one out: the mean of one other sample would explain all of it."""


def linear_predictivity(x_gram: Array, y_gram: Array, *, alpha: float = 0.01) -> Tensor:
    """Return the share of the variance of Y that ridge regression on X predicts, for samples that it was not fitted to.

    Each sample in turn is left out. Ridge regression with an intercept is fitted to the others, and predicts all
    features of Y of the sample that is left out. The result is ``R^2 = 1 - PRESS / PRESS_0``: PRESS is the sum of
    squared errors, and PRESS_0 that of the mean of the other samples. The penalty is ``alpha tr(K) / n``, from all
    samples. No regression is fitted: with the hat matrix ``H = 1/n + K (K + penalty I)^-1``, the errors are
    ``((I - H) Y)_i / (1 - H_ii)``.

    It is not symmetric: a layer that loses features is predicted well, and does not predict well. It does not change
    with rotations, scales and translations. Sources: Allen 1974 (https://doi.org/10.1080/00401706.1974.10489157) and
    Golub et al. 1979 (https://doi.org/10.1080/00401706.1979.10489751) for the errors; Kornblith et al. 2019
    (https://arxiv.org/abs/1905.00414) for linear regression as a similarity index, there without penalty, and for the
    samples that it was fitted to.

    Args:
        x_gram: Gram matrix of the features that predict, symmetric, ``(n, n)``, centered or not, n >= 3.
        y_gram: Gram matrix of the features that are predicted, of the same samples, ``(n, n)``.
        alpha: The penalty as a part of the mean squared norm of the centered features X; greater than 0.

    Returns:
        Scalar, at most 1; 0 if X predicts as well as the mean, and negative if it predicts worse. ``nan`` for a
        representation without variance or with values that are not finite.

    Raises:
        TypeError: A matrix is not a real floating-point tensor.
        ValueError: The shapes differ or are not square, n < 3, or ``alpha`` is out of range.

    Example:
        >>> import torch
        >>> from lightning_cka.functional import centered_gram, linear_predictivity
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(512, 4, dtype=torch.float64)
        >>> k, part = centered_gram(x), centered_gram(x[:, :2])
        >>> round(linear_predictivity(k, part).item(), 2), round(linear_predictivity(part, k).item(), 2)
        (1.0, 0.52)
    """
    check_alpha(alpha)
    x_gram, y_gram = to_tensor(x_gram), to_tensor(y_gram)
    check_gram_pair(x_gram, y_gram, MIN_SAMPLES)
    wide = accumulator_dtype(x_gram.device)
    k, ell = (doubly_centered(gram.to(wide)) for gram in (x_gram, y_gram))
    return (1 - (error_weights(k, alpha) * ell).sum() / errors_of_mean(ell)).to(x_gram.dtype)


def check_alpha(alpha: float) -> None:
    """Raise a `ValueError` unless ``alpha`` is a finite number greater than 0."""
    if not (alpha > 0 and isfinite(alpha)):
        raise ValueError(f"alpha must be a finite number greater than 0, but is {alpha}")


def error_weights(gram: Tensor, alpha: float) -> Tensor:
    """Return S such that the sum of squared errors of predicted features with Gram matrix L is ``<S, L>_F``.

    With the residuals ``R = I - H``, the errors are ``diag(1 - H_ii)^-1 R Y``. So S is ``R diag(1 - H_ii)^-2 R``.

    Args:
        gram: Doubly centered Gram matrix of the features that predict, ``(n, n)``.
        alpha: The penalty as a part of the mean squared norm of these features.

    Returns:
        Symmetric matrix, ``(n, n)``; ``nan`` if the features have no variance, or an entry is not finite.
    """
    n, trace = len(gram), gram.trace()
    if not (gram.isfinite().all() and trace > 0):
        return torch.full_like(gram, torch.nan)
    # The intercept leaves no residuals in the direction of ones. Its eigenvalue becomes the largest, to leave it out.
    values, vectors = torch.linalg.eigh(gram + 2 * trace / n)
    values, vectors = values[:-1], vectors[:, :-1]
    penalty = alpha * trace / n
    residuals = (vectors * (penalty / (values + penalty))) @ vectors.mT
    weights: Tensor = (residuals / residuals.diagonal().square()) @ residuals
    return weights


def errors_of_mean(gram: Tensor) -> Tensor:
    """Return the sum of squared distances of each sample to the mean of the others, ``(n / (n - 1))^2 tr(L)``.

    Args:
        gram: Doubly centered Gram matrices, ``(..., n, n)``.

    Returns:
        Sums, ``(...)``.
    """
    n = gram.shape[-1]
    traces: Tensor = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    return traces * (n / (n - 1)) ** 2
