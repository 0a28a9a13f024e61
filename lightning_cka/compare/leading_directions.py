"""How much CKA depends on the leading direction of two layers, and on a group of samples that lies apart.

The leading direction is the leading eigenvector of a layer's centered Gram matrix, batch by batch. A group lies apart
if two groups explain nearly all variance along the direction. Second opinions on the same samples are computed beside
it: mutual kNN, and the CKA of hat matrices where CKA is high but falls without the two directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.compared_directions import Side, compared
from lightning_cka.compare.direction_statistics import ENDS, NUM_ROWS, SIZE, DirectionStatistics, statistics_of
from lightning_cka.compare.partners import Partners
from lightning_cka.hsic.even_parts import even_parts
from lightning_cka.hsic.first_directions import MAX_SAMPLES, FirstDirections, FirstGrams, find_together
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.runtime.collectives import all_reduce_sum
from lightning_cka.runtime.devices import to_device

MAX_BATCHES = 16
"""Number of batches that are looked at: the first ones of the probe set."""

MIN_SAMPLES = 16
"""Smallest batch that is looked at. In smaller ones, each direction has much of the variance by chance."""

_MAX_ENTRIES = 2**16 + 2**13
"""Largest number of matrix entries of one model that are converted to float64 at a time."""

_MAX_TOGETHER = 2**17
"""The same for layers of several batches. With fewer, each operation takes longer than its arithmetic."""


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
        self._waiting: list[_Part] = []

    def add(
        self,
        index: int,
        x: PackedGrams,
        y: PackedGrams | None,
        samples: Sequence[int],
        of_x: FirstDirections | None = None,
        of_y: FirstDirections | None = None,
    ) -> None:
        """Add one batch, if it is one of those that are looked at.

        Args:
            index: Index of the batch in the probe set.
            x: Gram matrices of the model's layers.
            y: Gram matrices of the reference's layers. None: the model is compared with itself.
            samples: Numbers of the n samples.
            of_x: The leading directions of x, if they are shared with other comparisons.
            of_y: Those of y.
        """
        if index >= MAX_BATCHES or x.num_samples < MIN_SAMPLES:
            return
        sides = [(x, of_x or FirstDirections())]
        sides.append(sides[0] if y is None else (y, of_y or FirstDirections()))
        count = len(self._pairs.rows)
        alone, together = (limit // min(x.num_samples, MAX_SAMPLES) ** 2 for limit in (_MAX_ENTRIES, _MAX_TOGETHER))
        # With many layers, a batch does not wait for others: what waits takes memory.
        is_alone = 2 * max(count, *(len(grams.halves) for grams, _ in sides)) > together
        if is_alone:
            for grams, directions in sides:
                directions.of(grams)
        numbers = to_device(torch.tensor(samples, device="cpu"), self._ends.device)
        for chunk in even_parts(count, alone):
            parts = []
            for (grams, directions), indices in zip(sides, self._pairs, strict=True):
                layers = _as_slice(indices[chunk])
                first = FirstGrams.of(grams, layers) if is_alone else directions.take(grams).select(layers)
                parts.append(_OneSide(first, directions, layers))
            part = _Part(index, chunk, numbers, *parts)
            if self._waiting and not part.fits(self._waiting, together):
                self._look_at_waiting()
            self._waiting.append(part)
            if is_alone:
                self._look_at_waiting()

    def _look_at_waiting(self) -> None:
        """Find and compare the directions of what waits."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        with torch.inference_mode(False):
            find_together(side.directions for part in waiting for side in (part.x, part.y))
            x = Side.joined([part.x.found() for part in waiting])
            y = Side.joined([part.y.found() for part in waiting])
            numbers = compared(x, y, unbiased=self._unbiased).to(self._numbers)
            order = torch.stack([x.found.order, y.found.order]).to(self._ends.device)
            ends = torch.cat([order[:, :, :ENDS], order[:, :, -ENDS:].flip(2)], 2)
            start = 0
            for part in waiting:
                own = slice(start, start := start + len(part.x.grams.u))
                self._numbers[part.batch, :, part.pairs] = numbers[:, own]
                self._ends[part.batch, :, :, part.pairs] = part.samples[ends[:, own]].movedim(1, 2)

    def result(self, *, distributed: bool) -> list[DirectionStatistics]:
        """Return the statistics of each pair. If processes share the batches, all of them must call this."""
        self._look_at_waiting()
        numbers = all_reduce_sum(self._numbers, distributed=distributed).cpu()
        ends = all_reduce_sum(self._ends, distributed=distributed).cpu()
        looked_at = (numbers[:, SIZE] > 0).any(1)
        return statistics_of(numbers[looked_at], ends[looked_at])


def _as_slice(indices: list[int]) -> slice | list[int]:
    """Return consecutive indices as a slice, which copies nothing."""
    whole = slice(indices[0], indices[0] + len(indices))
    return whole if indices == list(range(whole.start, whole.stop)) else indices


class _OneSide(NamedTuple):
    """One side of p pairs in one batch."""

    grams: FirstGrams
    """Gram matrices of the first samples."""
    directions: FirstDirections
    """Finds the directions of all layers of the model."""
    layers: slice | list[int]
    """The layers of the pairs."""

    def found(self) -> Side:
        """Return this side with its directions."""
        return Side(self.grams, self.directions.found_on(self.grams.u.device).select(self.layers))


class _Part(NamedTuple):
    """Some pairs in one batch."""

    batch: int
    """Index of the batch."""
    pairs: slice
    """Which of all pairs they are."""
    samples: Tensor
    """Numbers of the samples."""
    x: _OneSide
    """The model's side."""
    y: _OneSide
    """The reference's side."""

    def fits(self, others: Sequence[_Part], most: int) -> bool:
        """Whether this can be compared together with others, with this number of pairs at most."""
        count = sum(len(part.x.grams.u) for part in (self, *others))
        return count <= most and self._kind() == others[0]._kind()

    def _kind(self) -> list[tuple[torch.Size, torch.dtype]]:
        return [(side.grams.offsets.shape[1:], side.grams.u.dtype) for side in (self.x, self.y)]
