"""Leading directions and nearest neighbours of the first samples of a batch, computed once for each model."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.hsic.centered_grams import CenteredGrams
from lightning_cka.hsic.even_parts import even_parts
from lightning_cka.hsic.folding import fold
from lightning_cka.hsic.leading import LeadingPairs, leading_eigenvectors
from lightning_cka.hsic.neighbors import MutualKNN
from lightning_cka.hsic.packed import PackedGrams, diagonals, select_layers
from lightning_cka.hsic.subset import first_samples

MAX_SAMPLES = 64
"""Number of samples that are looked at in each batch: the first ones."""

_MAX_ENTRIES = 2**18
"""Largest number of matrix entries of which directions are computed at a time: many layers need no more operations
than one."""


def first_grams(grams: PackedGrams, layers: slice | list[int]) -> CenteredGrams:
    """Return the Gram matrices of the first samples, for some layers."""
    chosen = select_layers(grams, layers)
    u, offsets = first_samples(chosen, MAX_SAMPLES)
    return CenteredGrams(u, diagonals(chosen._replace(offsets=offsets)))


def first_packed(grams: PackedGrams, layers: slice | Tensor) -> PackedGrams:
    """Return the packed Gram matrices of the first samples, for some layers."""
    chosen = select_layers(grams, layers)
    u, offsets = first_samples(chosen, MAX_SAMPLES)
    return PackedGrams(fold(u), offsets, chosen.scales, u.square().sum(2))


class Directions(NamedTuple):
    """The leading directions of L layers on n samples."""

    values: Tensor
    """Leading eigenvalues, ``(L,)``; ``nan`` where none was found."""
    vectors: Tensor
    """Leading eigenvectors, ``(L, n)``; ``nan`` where none was found."""
    squares: Tensor
    """<U, U>, ``(L,)``."""
    order: Tensor
    """Places of the samples, sorted by the eigenvector, ``(L, n)``."""
    separation: Tensor
    """Largest part of the variance along the eigenvector that two groups explain, ``(L,)``."""
    lower: Tensor
    """Number of samples in the group at the lower end, ``(L,)``."""
    neighbors: Tensor
    """Whether j is among the nearest neighbours of i, ``(L, n, n)`` bool; see `MutualKNN`."""

    def select(self, layers: slice | list[int]) -> Directions:
        """Return those of some layers."""
        return Directions(*(part[layers] for part in self))

    def groups(self, chosen: Tensor) -> Tensor:
        """Return for some layers unit vectors that are constant in each group and sum to zero, ``(c, n)``."""
        n, size = self.vectors.shape[1], self.lower[chosen, None].double()
        is_lower = self.order[chosen].argsort(1) < size
        groups = torch.where(is_lower, -1 / size, 1 / (n - size))
        lengths: Tensor = torch.linalg.vector_norm(groups, dim=1, keepdim=True)
        return groups / lengths


def _nearest(grams: CenteredGrams) -> Tensor:
    """Return whether j is among the nearest neighbours of i, ``(L, n, n)`` bool.

    D_ij = -2 (U_ij + s_i + s_j). The order of a row needs U_ij + s_j only, and s_j follows from the diagonal. Ties and
    rounding errors are not looked at: they can only make the neighbours of two layers less alike.
    """
    n = grams.u.shape[-1]
    nearness = grams.u - grams.diagonal[:, None] * (n / (2 * (n - 2)))
    nearness.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    places = nearness.topk(MutualKNN().num_neighbors(n), dim=2, sorted=False).indices
    return torch.zeros_like(nearness, dtype=torch.bool).scatter_(2, places, value=True)


def _with_groups(pairs: LeadingPairs, neighbors: Tensor) -> Directions:
    """Return the directions with the two groups of samples that explain most of the variance along them."""
    n = pairs.vectors.shape[1]
    ordered, order = pairs.vectors.sort(1)
    below = torch.arange(1, n, dtype=ordered.dtype, device=ordered.device)
    # Eigenvectors have mean 0 and length 1, so this is the part of the variance between the groups.
    separation, best = (ordered.cumsum(1)[:, :-1].square() * (n / (below * (n - below)))).max(1)
    return Directions(*pairs, order, separation, best + 1, neighbors)


class FirstDirections:
    """What the first samples of one batch of one model tell: leading directions and neighbours. Computed once.

    Several references are compared with the same batch of the live model, and a reference's batch is compared with
    the live model at every epoch.
    """

    def __init__(self) -> None:
        self._found: Directions | None = None

    def __reduce__(self) -> tuple[type[FirstDirections], tuple[()]]:
        """Copies and pickles, which go to other processes, compute them again."""
        return FirstDirections, ()

    def of(self, grams: PackedGrams) -> Directions:
        """Return the leading directions and the neighbours of all L layers.

        Args:
            grams: Gram matrices of the batch: the same ones in each call, on any device.
        """
        if self._found is None:
            found, nearest = [], []
            for layers in even_parts(len(grams.halves), _MAX_ENTRIES // min(grams.num_samples, MAX_SAMPLES) ** 2):
                first = first_grams(grams, layers)
                found.append(leading_eigenvectors(first))
                nearest.append(_nearest(first))
            pairs = LeadingPairs(*(torch.cat(parts) for parts in zip(*found, strict=True)))
            self._found = _with_groups(pairs, torch.cat(nearest))
        return Directions(*(part.to(grams.offsets.device) for part in self._found))
