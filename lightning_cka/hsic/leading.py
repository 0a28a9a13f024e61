"""The leading eigenvectors of centered Gram matrices, by the Lanczos method, and the matrices without them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.hsic.centered_grams import CenteredGrams, dots, u_products
from lightning_cka.hsic.even_parts import even_parts
from lightning_cka.hsic.precision import full_precision
from lightning_cka.hsic.removed import direction, squares_without

_MAX_ENTRIES = 2**16 + 2**13
"""Largest number of matrix entries that are converted to float64 at a time."""

_STEPS = 10
"""Number of products with each matrix. Where one direction dominates, half of them would do."""

_TOLERANCE = 0.02
"""Largest residual of an eigenvector, in units of the norm of what remains of the matrix without it, and in units of
the difference to the second eigenvalue."""

_MIN_REST = 2e-6
"""Smallest norm of what remains of a matrix without its leading eigenvector, in units of the eigenvalue: 16 rounding
errors of float32."""

_MIN_OTHERS = 1e-3
"""Smallest norm of what remains without two eigenvectors, in units of what remains without one."""

_SQUARINGS = 9
"""How often the small matrix of the Lanczos method is squared, which leaves its leading eigenvector."""

_SQUARINGS_AT_A_TIME = 5
"""How often it is squared before its norm is 1 again. It falls to 1e-16 at most: k^-16 for k steps."""


class LeadingPairs(NamedTuple):
    """The leading eigenvalue and eigenvector of each Gram matrix.

    Both are ``nan`` where the method did not converge, and where at most two directions vary.
    """

    values: Tensor
    """Eigenvalues, ``(L,)``, in float64."""
    vectors: Tensor
    """Eigenvectors of length 1, ``(L, n)``, in float64. The longer tail of their entries is positive."""
    squares: Tensor
    """<U, U>, ``(L,)``, in float64."""


def leading_eigenvectors(grams: CenteredGrams) -> LeadingPairs:
    """Return the leading eigenvectors by the Lanczos method (https://doi.org/10.6028/jres.045.026).

    The start is the same for each call, so that no random number is drawn.

    Args:
        grams: Gram matrices of L layers on n samples.
    """
    vectors, first, second = _lanczos(grams)
    # In float32, rounding errors of a dominant direction would be larger than all other directions.
    checked = [
        _checked(CenteredGrams(grams.u[part], grams.diagonal[part]).double(), vectors[part], first[part], second[part])
        for part in even_parts(len(vectors), _MAX_ENTRIES // vectors.shape[1] ** 2)
    ]
    return LeadingPairs(*(torch.cat(parts) for parts in zip(*checked, strict=True)))


def _lanczos(grams: CenteredGrams) -> tuple[Tensor, Tensor, Tensor]:
    """Return vectors close to the leading eigenvectors ``(L, n)``, and the two leading eigenvalues, ``(L,)``."""
    n = grams.u.shape[-1]
    steps = min(_STEPS, n - 1)
    basis = grams.u.new_empty(len(grams.u), steps, n)
    small = basis.new_zeros(len(basis), steps, steps, dtype=torch.float64)
    weights, largest = grams.weights(), basis.new_zeros(len(basis), 1)
    # Multiples of the golden ratio: a vector that is not orthogonal to any eigenvector, except by chance.
    start = torch.arange(1, n + 1, dtype=torch.float64, device="cpu") * 0.6180339887498949 % 1
    start = start - start.mean()
    basis[:, 0] = (start / torch.linalg.vector_norm(start)).to(basis)
    with full_precision(basis.device.type):
        for step in range(steps):
            known = basis[:, : step + 1]
            product = torch.addcmul(grams.u_times(known[:, step:]), weights, known[:, step:])
            part = torch.bmm(product, known.mT)
            product = torch.baddbmm(product, part, known, alpha=-1)
            product = product - product.mean(2, keepdim=True)
            small[:, : step + 1, step] = part[:, 0]
            if step + 1 < steps:
                # The second time removes rounding errors of the first.
                product = torch.baddbmm(product, torch.bmm(product, known.mT), known, alpha=-1)[:, 0]
                product = product - product.mean(1, keepdim=True)
                length = torch.linalg.vector_norm(product, dim=1, keepdim=True)
                # Once the vectors span an invariant space, only rounding errors remain.
                largest = torch.maximum(largest, part.abs().amax(2))
                is_new = length > 100 * torch.finfo(length.dtype).eps * largest
                basis[:, step + 1] = (product / length).where(is_new, torch.zeros_like(length))
    small = small + small.triu(1).mT
    first, weights = _leading_of_small(small)
    second, _ = _leading_of_small(small - first[:, None, None] * weights[:, :, None] * weights[:, None, :])
    vectors = (basis * weights[:, :, None].to(basis)).sum(1)
    return vectors.double(), first, second


def _leading_of_small(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the leading eigenvalues ``(L,)`` and eigenvectors ``(L, k)`` of small matrices ``(L, k, k)``.

    `torch.linalg.eigh` would wait for an accelerator.
    """
    power = matrices
    for squaring in range(_SQUARINGS):
        if squaring % _SQUARINGS_AT_A_TIME == 0:
            power = power / torch.linalg.vector_norm(power, dim=(1, 2), keepdim=True)
        power = power @ power
    largest = torch.linalg.vector_norm(power, dim=1).argmax(1)
    vectors = power.gather(2, largest[:, None, None].expand(-1, power.shape[1], 1))[:, :, 0]
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return ((matrices * vectors[:, None, :]).sum(2) * vectors).sum(1), vectors


def _checked(grams: CenteredGrams, vectors: Tensor, first: Tensor, second: Tensor) -> LeadingPairs:
    """Return the eigenvalues and eigenvectors, and <U, U>.

    The first two are ``nan`` where a vector is not close to an eigenvector, and where at most two directions vary.

    Args:
        grams: Gram matrices of L layers, in float64.
        vectors: Vectors close to the leading eigenvectors, ``(L, n)``, in float64.
        first: Their eigenvalues, approximately, ``(L,)``.
        second: The second eigenvalues, approximately, ``(L,)``.
    """
    product = grams.times(vectors[:, None])[:, 0]
    vectors = product / torch.linalg.vector_norm(product, dim=1, keepdim=True)
    product = grams.times(vectors[:, None])[:, 0]
    values = dots(product, vectors)
    residual = torch.linalg.vector_norm(product - values[:, None] * vectors, dim=1)
    squares = u_products(grams, grams)
    # What remains without the eigenvector must be larger than the errors that the eigenvector leaves in it.
    left = squares_without(grams, direction(values, vectors), squares)
    rest = left.sqrt()
    has_converged = residual <= _TOLERANCE * torch.minimum(rest, first - second)
    # What remains without two directions: more than rounding errors, and more than a thousandth of the second.
    has_converged &= (rest > _MIN_REST * values) & (left - second.square() > _MIN_OTHERS**2 * left)
    nan = torch.full_like(values, torch.nan)
    vectors = vectors * torch.where(vectors.pow(3).sum(1) < 0, -1.0, 1.0).to(vectors)[:, None]
    return LeadingPairs(values.where(has_converged, nan), vectors.where(has_converged[:, None], nan[:, None]), squares)
