"""The leading eigenvectors of centered Gram matrices, by the Lanczos method, and the matrices without them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_STEPS = 10
"""Number of products with each matrix. Where one direction dominates, half of them would do."""

_TOLERANCE = 0.02
"""Largest residual of an eigenvector, in units of the norm of what remains of the matrix without it, and in units of
the difference to the second eigenvalue."""

_ROUNDING = 16.0
"""Smallest norm of what remains of a matrix without its leading eigenvector, in units of its rounding errors."""

_MIN_OTHERS = 1e-3
"""Smallest norm of what remains without two eigenvectors, in units of what remains without one."""

_SQUARINGS = 9
"""How often the small matrix of the Lanczos method is squared, which leaves its leading eigenvector."""


class CenteredGrams(NamedTuple):
    """Doubly centered Gram matrices K of L layers on n samples, in two parts.

    With U and d apart, a far sample does not reduce the precision of the other samples' entries.
    """

    u: Tensor
    """The U-centered matrices, ``(L, n, n)``, with zeros on the diagonal."""
    diagonal: Tensor
    """The diagonals d of K, ``(L, n)``."""

    def times(self, vectors: Tensor) -> Tensor:
        """Return K v for each layer.

        Args:
            vectors: One vector per layer, ``(L, n)``, whose entries sum to zero.
        """
        n = self.u.shape[-1]
        d = self.diagonal
        # As a product and a sum: `torch.bmm` with one column takes five times as long on a CPU.
        product = (self.u * vectors[:, None, :]).sum(2) + d * vectors * (n / (n - 2))
        mixed = (d * vectors).sum(1, keepdim=True) / (n - 2)
        product = product - mixed - vectors * d.sum(1, keepdim=True) / ((n - 1) * (n - 2))
        return product - product.mean(1, keepdim=True)

    def without(self, left: Tensor, right: Tensor) -> CenteredGrams:
        """Return K - (a b^T + b a^T) for each layer.

        Args:
            left: Vectors a, ``(L, n)``, whose entries sum to zero.
            right: Vectors b, likewise.
        """
        n = self.u.shape[-1]
        diagonal = 2 * left * right
        shift = diagonal / (n - 2) - diagonal.sum(1, keepdim=True) / (2 * (n - 1) * (n - 2))
        outer = left[:, :, None] * right[:, None, :]
        u = self.u - outer - outer.mT - shift[:, :, None] - shift[:, None, :]
        u.diagonal(dim1=1, dim2=2).zero_()
        return CenteredGrams(u, self.diagonal - diagonal)

    def squared_norms(self) -> Tensor:
        """Return the squared Frobenius norms of K, ``(L,)``, in float64."""
        return inner(self, self, unbiased=False)


def inner(x: CenteredGrams, y: CenteredGrams, *, unbiased: bool) -> Tensor:
    """Return the unnormalised HSIC of matching layers, ``(L,)``, in float64: <U_K, U_L>, or <K, L> if biased."""
    products = (x.u * y.u).sum((1, 2), dtype=torch.float64)
    if unbiased:
        return products
    n = x.u.shape[-1]
    d, e = x.diagonal.double(), y.diagonal.double()
    return products + (d * e).sum(1) * n / (n - 2) - d.sum(1) * e.sum(1) / ((n - 1) * (n - 2))


class LeadingPairs(NamedTuple):
    """The leading eigenvalue and eigenvector of each Gram matrix.

    They are ``nan`` where the method did not converge, and where at most two directions vary.
    """

    values: Tensor
    """Eigenvalues, ``(L,)``, in float64."""
    vectors: Tensor
    """Eigenvectors of length 1, ``(L, n)``, in float64. The longer tail of their entries is positive."""


def leading_eigenvectors(grams: CenteredGrams) -> LeadingPairs:
    """Return the leading eigenvectors by the Lanczos method (https://doi.org/10.6028/jres.045.026).

    The start is the same for each call, so that no random number is drawn.

    Args:
        grams: Gram matrices of L layers on n samples.
    """
    n = grams.u.shape[-1]
    # Multiples of the golden ratio: a vector that is not orthogonal to any eigenvector, except by chance.
    start = torch.arange(1, n + 1, dtype=torch.float64, device="cpu") * 0.6180339887498949 % 1
    vector = (start - start.mean()).to(grams.u).expand(len(grams.u), -1)
    vector = vector / torch.linalg.vector_norm(vector, dim=1, keepdim=True)
    steps = min(_STEPS, n - 1)
    basis, small = [vector], vector.new_zeros(len(vector), steps, steps, dtype=torch.float64)
    for step in range(steps):
        product = grams.times(basis[-1])
        known = torch.stack(basis, 1)
        for _ in range(2):  # The second time removes rounding errors of the first.
            part = (known * product[:, None, :]).sum(2)
            small[:, : step + 1, step] += part
            product = product - (known * part[:, :, None]).sum(1)
            product = product - product.mean(1, keepdim=True)
        length = torch.linalg.vector_norm(product, dim=1, keepdim=True)
        if step + 1 < steps:
            # Once the vectors span an invariant space, only rounding errors remain.
            is_new = length > 100 * torch.finfo(length.dtype).eps * small.abs().amax((1, 2))[:, None].to(length)
            basis.append((product / length).where(is_new, torch.zeros_like(product)))
    small = small + small.triu(1).mT
    first, weights = _leading_of_small(small)
    second, _ = _leading_of_small(small - first[:, None, None] * weights[:, :, None] * weights[:, None, :])
    vectors = (torch.stack(basis, 1) * weights[:, :, None].to(vector)).sum(1)
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return _checked(grams, vectors, first, second)


def _leading_of_small(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the leading eigenvalues ``(L,)`` and eigenvectors ``(L, k)`` of small matrices ``(L, k, k)``.

    `torch.linalg.eigh` would wait for an accelerator.
    """
    power = matrices
    for _ in range(_SQUARINGS):
        power = power / torch.linalg.vector_norm(power, dim=(1, 2), keepdim=True)
        power = power @ power
    largest = torch.linalg.vector_norm(power, dim=1).argmax(1)
    vectors = power.gather(2, largest[:, None, None].expand(-1, power.shape[1], 1))[:, :, 0]
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return ((matrices * vectors[:, None, :]).sum(2) * vectors).sum(1), vectors


def _checked(grams: CenteredGrams, vectors: Tensor, first: Tensor, second: Tensor) -> LeadingPairs:
    """Return eigenvectors with their eigenvalues.

    They are ``nan`` where a vector is not close to an eigenvector, and where at most two directions vary.

    Args:
        grams: Gram matrices of L layers.
        vectors: Vectors close to the leading eigenvectors, ``(L, n)``.
        first: Their eigenvalues, approximately, ``(L,)``.
        second: The second eigenvalues, approximately, ``(L,)``.
    """
    eps = torch.finfo(grams.u.dtype).eps
    # In float32, rounding errors of a dominant direction would be larger than all other directions.
    grams = CenteredGrams(grams.u, grams.diagonal.double())
    product = grams.times(vectors.double())
    vectors = product / torch.linalg.vector_norm(product, dim=1, keepdim=True)
    product = grams.times(vectors)
    values = (product * vectors).sum(1)
    residual = torch.linalg.vector_norm(product - values[:, None] * vectors, dim=1)
    # What remains without the eigenvector must be larger than the errors that the eigenvector leaves in it.
    rest = grams.without(vectors * (values / 2)[:, None], vectors).squared_norms().sqrt()
    has_converged = residual <= _TOLERANCE * torch.minimum(rest, first - second)
    # What remains without two directions: more than rounding errors, and more than a thousandth of the second.
    others = rest.square() - second.square()
    has_converged &= (rest > _ROUNDING * eps * values) & (others > (_MIN_OTHERS * rest).square())
    nan = torch.full_like(values, torch.nan)
    vectors = vectors * torch.where(vectors.pow(3).sum(1) < 0, -1.0, 1.0).to(vectors)[:, None]
    return LeadingPairs(values.where(has_converged, nan), vectors.where(has_converged[:, None], nan[:, None]))
