"""`CenteredGrams`: doubly centered Gram matrices of many layers, not packed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.hsic.precision import full_precision


def dots(x: Tensor, y: Tensor) -> Tensor:
    """Return the dot products of matching rows."""
    products: Tensor = torch.linalg.vecdot(x, y)
    return products


class CenteredGrams(NamedTuple):
    """Doubly centered Gram matrices K of L layers on n samples, in two parts.

    With U and d apart, a far sample does not reduce the precision of the other samples' entries.
    """

    u: Tensor
    """The U-centered matrices, ``(L, n, n)``, with zeros on the diagonal."""
    diagonal: Tensor
    """The diagonals d of K, ``(L, n)``."""

    def double(self) -> CenteredGrams:
        """Return the matrices in float64."""
        return CenteredGrams(self.u.double(), self.diagonal.double())

    def select(self, layers: Tensor) -> CenteredGrams:
        """Return those of some layers, without copies if these are all of them."""
        if len(layers) == len(self.u):
            return self
        return CenteredGrams(self.u[layers], self.diagonal[layers])

    def times(self, vectors: Tensor) -> Tensor:
        """Return K v for each layer.

        Args:
            vectors: k vectors per layer, ``(L, k, n)``, whose entries sum to zero.
        """
        product = torch.addcmul(self.u_times(vectors), self.weights(), vectors)
        return product - product.mean(2, keepdim=True)

    def u_times(self, vectors: Tensor) -> Tensor:
        """Return U v for each layer; see `times`."""
        with full_precision(self.u.device.type):
            # U is symmetric. With the vectors as columns, `torch.bmm` takes up to nine times as long on a CPU.
            return torch.bmm(vectors, self.u)

    def weights(self) -> Tensor:
        """Return w, ``(L, 1, n)``: K v = U v + w v + c, where c is the same for all samples."""
        n, d = self.u.shape[-1], self.diagonal[:, None]
        return (d - d.sum(2, keepdim=True) / (n * (n - 1))) * (n / (n - 2))


def u_products(x: CenteredGrams, y: CenteredGrams) -> Tensor:
    """Return <U_K, U_L> of matching layers, ``(L,)``, which is the unnormalised unbiased HSIC."""
    return dots(x.u.flatten(1), y.u.flatten(1))


def diagonal_part(d: Tensor, e: Tensor) -> Tensor:
    """Return <K, L> - <U_K, U_L>, ``(L,)``, which follows from the diagonals d and e of K and L, ``(L, n)``."""
    n = d.shape[-1]
    return dots(d, e) * (n / (n - 2)) - d.sum(-1) * e.sum(-1) / ((n - 1) * (n - 2))
