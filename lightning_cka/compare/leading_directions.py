"""How much CKA depends on the leading direction of two layers, and on a group of samples that lies apart.

The leading direction is the leading eigenvector of a layer's centered Gram matrix, batch by batch. A group lies apart
if two groups explain nearly all variance along the direction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cka.compare.direction_statistics import (
    AGREEMENT,
    ENDS,
    MEMBERS,
    NUM_ROWS,
    SEPARATION,
    SIZE,
    WHOLE,
    WITHIN,
    WITHOUT,
    DirectionStatistics,
    statistics_of,
)
from lightning_cka.compare.partners import Partners
from lightning_cka.hsic.leading import CenteredGrams, inner, leading_eigenvectors
from lightning_cka.hsic.packed import PackedGrams, diagonals, select_layers
from lightning_cka.hsic.subset import first_samples
from lightning_cka.runtime.collectives import all_reduce_sum
from lightning_cka.runtime.devices import to_device

MAX_BATCHES = 16
"""Number of batches that are looked at: the first ones of the probe set."""

MAX_SAMPLES = 64
"""Number of samples that are looked at in each batch: the first ones."""

MIN_SAMPLES = 16
"""Smallest batch that is looked at. In smaller ones, each direction has much of the variance by chance."""

MIN_AGREEMENT = 0.5
"""Smallest squared cosine of the two layers' directions for which CKA without them is computed."""

MIN_SEPARATION = 0.8
"""Smallest part of the variance along a direction that two groups explain, for which CKA within them is computed."""

_MAX_ENTRIES = 2**19
"""Largest number of matrix entries of one side in memory at a time."""


class LeadingDirections:
    """Collects what some batches tell about the leading directions of P pairs of layers.

    Args:
        pairs: The pairs of layers.
        device: Device of the numbers.
        unbiased: Whether the HSIC is unbiased.
    """

    def __init__(self, pairs: Partners, device: torch.device, *, unbiased: bool) -> None:
        self._pairs = pairs
        self._unbiased = unbiased
        count = len(pairs.rows)
        # `trainer.validate()` makes this in inference mode, and adds batches outside it.
        with torch.inference_mode(False):
            # Zero in the places of batches of other processes.
            self._numbers = torch.zeros(MAX_BATCHES, NUM_ROWS, count, dtype=torch.float64, device=device)
            self._ends = torch.zeros(MAX_BATCHES, 2, 2 * ENDS, count, dtype=torch.int64, device=device)

    def add(self, index: int, x: PackedGrams, y: PackedGrams | None, samples: Sequence[int]) -> None:
        """Add one batch, if it is one of those that are looked at.

        Args:
            index: Index of the batch in the probe set.
            x: Gram matrices of the model's layers.
            y: Gram matrices of the reference's layers. None: the model is compared with itself.
            samples: Numbers of the n samples.
        """
        if index >= MAX_BATCHES or x.num_samples < MIN_SAMPLES:
            return
        count, step = len(self._pairs.rows), max(1, _MAX_ENTRIES // min(x.num_samples, MAX_SAMPLES) ** 2)
        numbers = to_device(torch.tensor(samples, device="cpu"), self._ends.device)
        for start in range(0, count, step):
            chunk = slice(start, start + step)
            sides = [
                _Side(select_layers(grams, _as_slice(indices[chunk])))
                for grams, indices in ((x, self._pairs.rows), (x if y is None else y, self._pairs.columns))
            ]
            self._numbers[index, :, chunk] = self._compared(*sides).to(self._numbers)
            order = torch.stack([side.order for side in sides]).to(numbers.device)
            ends = torch.cat([order[:, :, :ENDS], order[:, :, -ENDS:].flip(2)], 2)
            self._ends[index, :, :, chunk] = numbers[ends].movedim(1, 2)

    def _compared(self, x: _Side, y: _Side) -> Tensor:
        """Return what the batch tells about some pairs, ``(NUM_ROWS, p)``."""
        found = torch.full((NUM_ROWS, len(x.scale)), torch.nan, dtype=torch.float64, device=x.scale.device)
        found[SIZE] = x.grams.u.shape[-1]
        agreement = (x.vectors * y.vectors).sum(1).square()
        found[AGREEMENT] = agreement
        for place, side in enumerate((x, y)):
            found[SEPARATION + place], found[MEMBERS + place] = side.separation, side.members
        self._fill(found, WHOLE, x, y, None)
        if len(chosen := (agreement >= MIN_AGREEMENT).nonzero().flatten()):
            self._fill(found, WITHOUT, x.without_direction(chosen), y.without_direction(chosen), chosen)
        for place, side in enumerate((x, y)):
            if len(chosen := (side.separation >= MIN_SEPARATION).nonzero().flatten()):
                groups = side.groups[chosen]
                self._fill(found, WITHIN + 3 * place, x.within(groups, chosen), y.within(groups, chosen), chosen)
        return found

    def _fill(self, found: Tensor, row: int, x: _Part, y: _Part, chosen: Tensor | None) -> None:
        """Fill three rows with the products of some pairs."""
        for offset, (left, right) in enumerate(((x, y), (x, x), (y, y))):
            product = inner(left.grams, right.grams, unbiased=self._unbiased) * (left.scale * right.scale).square()
            if chosen is None:
                found[row + offset] = product
            else:
                found[row + offset, chosen] = product

    def result(self, *, distributed: bool) -> list[DirectionStatistics]:
        """Return the statistics of each pair. If processes share the batches, all of them must call this."""
        numbers = all_reduce_sum(self._numbers, distributed=distributed).cpu()
        ends = all_reduce_sum(self._ends, distributed=distributed).cpu()
        looked_at = (numbers[:, SIZE] > 0).any(1)
        return statistics_of(numbers[looked_at], ends[looked_at])


def _as_slice(indices: list[int]) -> slice | list[int]:
    """Return consecutive indices as a slice, which copies nothing."""
    whole = slice(indices[0], indices[0] + len(indices))
    return whole if indices == list(range(whole.start, whole.stop)) else indices


class _Part:
    """Gram matrices of one side for some pairs."""

    def __init__(self, grams: CenteredGrams, scale: Tensor) -> None:
        self.grams, self.scale = grams, scale


class _Side(_Part):
    """Gram matrices of one side for p pairs, with their leading directions.

    Attributes:
        vectors: Leading eigenvectors, ``(p, n)``.
        order: Places of the samples, sorted by the eigenvector, ``(p, n)``.
        separation: Largest part of the variance along the eigenvector that two groups explain, ``(p,)``.
        members: Number of samples in the smaller group, ``(p,)``; negative if it is at the lower end.
        groups: Unit vectors that are constant in each group and sum to zero, ``(p, n)``.
    """

    def __init__(self, grams: PackedGrams) -> None:
        u, offsets = first_samples(grams, MAX_SAMPLES)
        part = PackedGrams(u, offsets, grams.scales, offsets)
        super().__init__(CenteredGrams(u, diagonals(part)), grams.scales.double())
        self.values, self.vectors = leading_eigenvectors(self.grams)
        n = u.shape[-1]
        ordered, self.order = self.vectors.sort(1)
        below = torch.arange(1, n, dtype=torch.float64, device=u.device)
        # Eigenvectors have mean 0 and length 1, so this is the part of the variance between the groups.
        explained = ordered.cumsum(1)[:, :-1].square() * n / (below * (n - below))
        self.separation, best = explained.max(1)
        size = best + 1
        self.members = torch.where(size > n / 2, n - size, -size).double()
        is_low = self.order.argsort(1) < size[:, None]
        groups = torch.where(is_low, -1 / size[:, None], 1 / (n - size[:, None]))
        self.groups = groups / torch.linalg.vector_norm(groups, dim=1, keepdim=True)

    def without_direction(self, chosen: Tensor) -> _Part:
        """Return the Gram matrices of some pairs without the leading direction."""
        vectors, grams = self.vectors[chosen], self._chosen(chosen)
        return _Part(grams.without(vectors * (self.values[chosen] / 2)[:, None], vectors), self.scale[chosen])

    def within(self, groups: Tensor, chosen: Tensor) -> _Part:
        """Return the Gram matrices of some pairs, centered within two groups that `groups` separates."""
        grams, groups = self._chosen(chosen), groups.to(self.vectors)
        product = grams.times(groups)
        own = (product * groups).sum(1, keepdim=True)
        return _Part(grams.without(groups, product - groups * own / 2), self.scale[chosen])

    def _chosen(self, chosen: Tensor) -> CenteredGrams:
        if len(chosen) == len(self.scale):
            return self.grams
        return CenteredGrams(self.grams.u[chosen], self.grams.diagonal[chosen])
