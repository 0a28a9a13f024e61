"""Leading directions and nearest neighbours of the first samples of a batch, computed once for each model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_cka.hsic.centered_grams import CenteredGrams
from lightning_cka.hsic.even_parts import even_parts
from lightning_cka.hsic.folding import fold
from lightning_cka.hsic.leading import LeadingPairs, leading_eigenvectors
from lightning_cka.hsic.neighbors import MutualKNN
from lightning_cka.hsic.packed import PackedGrams, diagonals_of, select_layers
from lightning_cka.hsic.subset import first_samples

MAX_SAMPLES = 64
"""Number of samples that are looked at in each batch: the first ones."""

_MAX_ENTRIES = 2**18
"""Largest number of matrix entries of which directions are computed at a time."""


class FirstGrams(NamedTuple):
    """Gram matrices of the first samples, not packed, in memory of their own."""

    u: Tensor
    """The U-centered matrices, ``(L, n, n)``, with zeros on the diagonal."""
    offsets: Tensor
    """The offsets, ``(L, n)``; see `PackedGrams`."""
    scales: Tensor
    """The scales, ``(L,)``."""

    @classmethod
    def of(cls, grams: PackedGrams, layers: slice | list[int]) -> FirstGrams:
        """Return those of some layers."""
        chosen = select_layers(grams, layers)
        u, offsets = first_samples(chosen, MAX_SAMPLES)
        return cls(u, offsets.clone(), chosen.scales.clone())

    @classmethod
    def joined(cls, parts: Sequence[FirstGrams]) -> FirstGrams:
        """Return those of several batches of the same size, one after the other."""
        return parts[0] if len(parts) == 1 else cls(*map(torch.cat, zip(*parts, strict=True)))

    def select(self, layers: slice | list[int] | Tensor) -> FirstGrams:
        """Return those of some layers."""
        return FirstGrams(*(part[layers] for part in self))

    def centered(self) -> CenteredGrams:
        """Return the doubly centered matrices."""
        return CenteredGrams(self.u, diagonals_of(self.offsets))

    def packed(self) -> PackedGrams:
        """Return the matrices, each entry stored once."""
        return PackedGrams(fold(self.u), self.offsets, self.scales, self.u.square().sum(2))


def first_grams(grams: PackedGrams, layers: slice | list[int]) -> CenteredGrams:
    """Return the doubly centered Gram matrices of the first samples, for some layers."""
    return FirstGrams.of(grams, layers).centered()


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

    def select(self, layers: slice | list[int] | Tensor) -> Directions:
        """Return those of some layers."""
        return Directions(*(part[layers] for part in self))

    @classmethod
    def joined(cls, parts: Sequence[Directions]) -> Directions:
        """Return those of several batches of the same size, one after the other."""
        return parts[0] if len(parts) == 1 else cls(*map(torch.cat, zip(*parts, strict=True)))

    def groups(self) -> Tensor:
        """Return unit vectors that are constant in each group and sum to zero, ``(L, n)``."""
        n, size = self.vectors.shape[1], self.lower[:, None].double()
        is_lower = self.order.argsort(1) < size
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
    k = MutualKNN().num_neighbors(n)
    if nearness.device.type != "cpu":
        return _of_largest(nearness, k)
    # With NumPy's vector instructions, sorting all is faster than `topk`. Where samples are as near as the last
    # neighbour, or undefined, `topk` chooses.
    last = torch.from_numpy(np.sort(nearness.numpy(), 2)[:, :, -k])
    found = nearness >= last[:, :, None]
    if len(others := (found.sum(2) != k).nonzero()):
        places = others.unbind(1)
        found[places] = _of_largest(nearness[places], k)
    return found


def _of_largest(values: Tensor, k: int) -> Tensor:
    """Return which are the k largest values in the last dimension."""
    places = values.topk(k, dim=-1, sorted=False).indices
    return torch.zeros_like(values, dtype=torch.bool).scatter_(-1, places, value=True)


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
        self._waiting: FirstGrams | None = None

    def __reduce__(self) -> tuple[type[FirstDirections], tuple[()]]:
        """Copies and pickles, which go to other processes, compute them again."""
        return FirstDirections, ()

    def take(self, grams: PackedGrams) -> FirstGrams:
        """Return the Gram matrices of the first samples, and keep them for `find_together`, if that is not done.

        Args:
            grams: As for `of`.
        """
        first = self._waiting or FirstGrams.of(grams, slice(None))
        self._waiting = first if self._found is None else None
        return first

    def of(self, grams: PackedGrams) -> Directions:
        """Return the leading directions and the neighbours of all L layers.

        Args:
            grams: Gram matrices of the batch: the same ones in each call, on any device.
        """
        if self._found is None:
            parts = even_parts(len(grams.halves), _MAX_ENTRIES // min(grams.num_samples, MAX_SAMPLES) ** 2)
            self._found = _directions(first_grams(grams, layers) for layers in parts)
        return self.found_on(grams.offsets.device)

    def found_on(self, device: torch.device) -> Directions:
        """Return what was found, on a device.

        Raises:
            ValueError: Nothing was found yet.
        """
        if self._found is None:
            raise ValueError("the directions of a batch must be found before they are used")
        return Directions(*(part.to(device) for part in self._found))

    def _split(self, found: Directions, start: int) -> int:
        """Take over this batch's part of what was found, and return where the part of the next batch starts."""
        stop = start if self._waiting is None else start + len(self._waiting.u)
        self._found, self._waiting = found.select(slice(start, stop)), None
        return stop


def find_together(batches: Iterable[FirstDirections]) -> None:
    """Find the directions of batches whose Gram matrices wait. Many matrices need no more operations than one.

    Args:
        batches: Batches of the same size.
    """
    waiting = {id(each): (each, each._waiting) for each in batches if each._waiting is not None}
    if waiting:
        grams = FirstGrams.joined([grams for _, grams in waiting.values()]).centered()
        parts = even_parts(len(grams.u), _MAX_ENTRIES // grams.u.shape[1] ** 2)
        found, start = _directions(CenteredGrams(*(part[layers] for part in grams)) for layers in parts), 0
        for each, _ in waiting.values():
            start = each._split(found, start)


def _directions(parts: Iterable[CenteredGrams]) -> Directions:
    """Return the directions of the layers of all parts."""
    found, nearest = [], []
    for part in parts:
        found.append(leading_eigenvectors(part))
        nearest.append(_nearest(part))
    pairs = LeadingPairs(*map(torch.cat, zip(*found, strict=True)))
    return _with_groups(pairs, torch.cat(nearest))
