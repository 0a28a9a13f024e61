"""Where vectors hold the entries of the matrices that they are made of, and vectors of permuted samples.

Permuting the samples of a batch permutes the rows and columns of its matrices. So it only moves the entries of a
measure's vector, and the measure need not be computed again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cka.hsic.folding import half_size, triangle_indices
from lightning_cka.hsic.products import Vectors


def folded_positions(n: int, *, has_diagonal: bool = False) -> Tensor:
    """Return the positions of entries in the folded layout; see `fold` and `permuted_products`.

    Args:
        n: Number of samples.
        has_diagonal: Whether the diagonal follows the folded matrix.
    """
    diagonal = n * half_size(n) + torch.arange(n, device="cpu") if has_diagonal else None
    return _symmetric(torch.tril_indices(n, n, -1, device="cpu"), triangle_indices(n), n, diagonal)


def pair_positions(n: int) -> Tensor:
    """Return the positions of entries in a vector of the pairs i < j, row by row; see `permuted_products`."""
    pairs = torch.triu_indices(n, n, 1, device="cpu")
    return _symmetric(pairs, torch.arange(pairs.shape[1], device="cpu"), n)


def square_positions(n: int) -> Tensor:
    """Return the positions of entries in a flattened matrix; see `permuted_products`."""
    return torch.arange(n * n, device="cpu").reshape(n, n)


def _symmetric(pairs: Tensor, positions: Tensor, n: int, diagonal: Tensor | None = None) -> Tensor:
    table = torch.full((n, n), -1, dtype=torch.int64, device="cpu")
    table[pairs[0], pairs[1]] = table[pairs[1], pairs[0]] = positions
    if diagonal is not None:
        table.diagonal().copy_(diagonal)
    return table


def permuted_products(x: Vectors, y: Vectors, positions: Tensor, orders: Tensor) -> Tensor:
    """Return twice the inner products of all pairs of vectors, for permuted samples of the first model.

    Args:
        x: Vectors of L layers on one batch of n samples.
        y: Vectors of R layers on the same batch.
        positions: Where vectors hold entry (i, j) of a matrix, ``(n, n)``; negative where they do not hold it.
        orders: Orders of the samples, ``(P, n)``. The sample at place i is that of place ``orders[p, i]`` before.

    Returns:
        Products ``(P, L, R)`` in float64, as of `Vectors.products`.
    """
    if len(x.values) > len(y.values):  # Permute the model with fewer layers, in the opposite direction.
        return permuted_products(y, x, positions, orders.argsort(1)).mT
    rows, columns = (positions >= 0).nonzero(as_tuple=True)
    targets = positions[rows, columns]
    own, others = x.values.T.contiguous(), y.values.T.double()
    source = torch.arange(len(own), device="cpu")  # Entries that belong to no pair of samples stay in place.
    products = others.new_empty(len(orders), len(x.values), len(y.values))
    for order, product in zip(orders, products, strict=True):
        source[targets] = positions[order[rows], order[columns]]
        torch.mm(own.index_select(0, source).double().T, others, out=product)
    factors = x.factors.double()[:, None] * y.factors.double()
    return 2 * (products - x.chance) * factors
