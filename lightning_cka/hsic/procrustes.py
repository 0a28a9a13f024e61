"""The angular Procrustes distance, from doubly centered Gram matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cka.hsic.arrays import Array, to_tensor
from lightning_cka.hsic.centering import doubly_centered
from lightning_cka.hsic.grams import check_gram_pair
from lightning_cka.hsic.precision import accumulator_dtype


def procrustes_distance(x_gram: Array, y_gram: Array) -> Tensor:
    """Return the angular Procrustes distance of two representations, from their Gram matrices.

    It is the angle between the centered features X and the rotation of Y that is closest to them,
    ``arccos(|X^T Y|_* / (|X|_F |Y|_F))``, where the nuclear norm ``|X^T Y|_*`` is the sum of singular values: that of
    the square roots of the eigenvalues of ``K^(1/2) L K^(1/2)``. It is a metric. Features that differ by a rotation, a
    reflection, a scale and a translation have the distance 0. Paper: Williams et al. 2021
    (https://arxiv.org/abs/2110.14739).

    The value depends on n: with more features than samples, unrelated representations have a small distance, too.

    Args:
        x_gram: Symmetric Gram matrix without negative eigenvalues, ``(n, n)``, centered or not, n >= 2.
        y_gram: Gram matrix of the same samples, ``(n, n)``.

    Returns:
        Scalar in [0, pi / 2], in radians; ``nan`` for a representation without variance or with values that are not
        finite.

    Raises:
        TypeError: A matrix is not a real floating-point tensor.
        ValueError: The shapes differ or are not square, or n < 2.

    Example:
        >>> import torch
        >>> from lightning_cka.functional import centered_gram, procrustes_distance
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(512, 4, dtype=torch.float64)
        >>> noise = torch.randn(512, 4, dtype=torch.float64)
        >>> rotated = x[:, [1, 0, 3, 2]]
        >>> others = (rotated, x + noise, noise)
        >>> [round(procrustes_distance(centered_gram(x), centered_gram(y)).item(), 2) for y in others]
        [0.0, 0.77, 1.5]
    """
    x_gram, y_gram = to_tensor(x_gram), to_tensor(y_gram)
    check_gram_pair(x_gram, y_gram, 2)
    wide = accumulator_dtype(x_gram.device)
    factors = [gram_factor(doubly_centered(gram.to(wide))) for gram in (x_gram, y_gram)]
    x, y = (factor / factor.norm() for factor in factors)
    return angle_of(squared_distance(x, y)).to(x_gram.dtype)


def gram_factor(gram: Tensor) -> Tensor:
    """Return features whose Gram matrix this is: A with ``A A^T = K``, up to rounding errors of K.

    One eigenvalue of a doubly centered matrix is zero, and none is negative. So eigenvalues up to four times the size
    of the most negative one are rounding errors. They are left out, since their roots would not be small.

    Args:
        gram: Doubly centered Gram matrix, ``(n, n)``.

    Returns:
        Features, ``(n, r)``, where r is the rank, but at least 1; ``(n, 1)`` of ``nan`` if an entry is not finite.
    """
    if not gram.isfinite().all():
        return torch.full_like(gram[:, :1], torch.nan)
    values, vectors = torch.linalg.eigh(gram)
    kept = values > -4 * values[0]
    kept[-1] = True
    features: Tensor = vectors[:, kept] * values[kept].relu().sqrt()
    return features


def nuclear_norm(x: Tensor, y: Tensor) -> Tensor:
    """Return the sum of the singular values of X^T Y, a scalar, for features ``(n, r)`` and ``(n, s)``."""
    product = x.mT @ y
    return torch.linalg.svdvals(product).sum() if product.isfinite().all() else product.sum()


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distance of features to the closest rotation of others, ``|X|^2 + |Y|^2 - 2 |X^T Y|_*``.

    It is computed as a sum of squares: the difference of the terms would lose half of the digits of a small distance.

    Args:
        x: Features, ``(n, r)``.
        y: Features, ``(n, s)``.

    Returns:
        A scalar; ``nan`` for features that are not finite.
    """
    rank = max(x.shape[1], y.shape[1])
    x, y = (torch.nn.functional.pad(z, (0, rank - z.shape[1])) for z in (x, y))
    product = x.mT @ y
    if not product.isfinite().all():
        return product.sum()
    u, _, v = torch.linalg.svd(product)
    squares: Tensor = (x @ u - y @ v.mT).square()
    return squares.sum()


def angle_of(squared: Tensor) -> Tensor:
    """Return the angles between vectors of norm 1 with these squared distances."""
    return 2 * (squared.sqrt() / 2).asin()


def angle_of_cosine(cosine: Tensor) -> Tensor:
    """Return angles in [0, pi / 2] from their cosines. A cosine above 1 can only be a rounding error."""
    return torch.atan2((1 - cosine.square()).abs().sqrt(), cosine)
