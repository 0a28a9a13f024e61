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

from lightning_cka.compare.direction_statistics import (
    AGREEMENT,
    ENDS,
    MEMBERS,
    NEIGHBORS,
    NUM_ROWS,
    RIDGE,
    SEPARATION,
    SIZE,
    WHOLE,
    WITHIN,
    WITHOUT,
    DirectionStatistics,
    statistics_of,
)
from lightning_cka.compare.influence import cka_of_sums
from lightning_cka.compare.partners import Partners
from lightning_cka.hsic.centered_grams import CenteredGrams, diagonal_part, dots, u_products
from lightning_cka.hsic.even_parts import even_parts
from lightning_cka.hsic.first_directions import (
    MAX_SAMPLES,
    Directions,
    FirstDirections,
    first_grams,
    first_packed,
)
from lightning_cka.hsic.hat_matrices import Ridge
from lightning_cka.hsic.neighbors import MutualKNN
from lightning_cka.hsic.packed import PackedGrams, select_layers
from lightning_cka.hsic.products import partner_products
from lightning_cka.hsic.removed import between_groups, direction, products_without
from lightning_cka.runtime.collectives import all_reduce_sum
from lightning_cka.runtime.devices import to_device

MAX_BATCHES = 16
"""Number of batches that are looked at: the first ones of the probe set."""

_MAX_ENTRIES = 2**16 + 2**13
"""Largest number of matrix entries of one model that are converted to float64 at a time."""

MIN_SAMPLES = 16
"""Smallest batch that is looked at. In smaller ones, each direction has much of the variance by chance."""

MIN_AGREEMENT = 0.5
"""Smallest squared cosine of the two layers' directions for which CKA without them is computed."""

MIN_HIGH_CKA = 0.8
"""Smallest CKA that a shared direction may cause, for which `Ridge` is computed."""

MAX_REMAINING = 0.5
"""Largest CKA without the shared direction for which `Ridge` is computed."""

MIN_SEPARATION = 0.8
"""Smallest part of the variance along a direction that two groups explain, for which CKA within them is computed."""


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
        of_model = (x, (of_x or FirstDirections()).of(x))
        of_reference = of_model if y is None else (y, (of_y or FirstDirections()).of(y))
        numbers = to_device(torch.tensor(samples, device="cpu"), self._ends.device)
        for chunk in even_parts(len(self._pairs.rows), _MAX_ENTRIES // min(x.num_samples, MAX_SAMPLES) ** 2):
            sides = [
                _side(*each, _as_slice(indices[chunk]))
                for each, indices in ((of_model, self._pairs.rows), (of_reference, self._pairs.columns))
            ]
            self._numbers[index, :, chunk] = self._compared(*sides).to(self._numbers)
            order = torch.stack([side.found.order for side in sides]).to(numbers.device)
            ends = torch.cat([order[:, :, :ENDS], order[:, :, -ENDS:].flip(2)], 2)
            self._ends[index, :, :, chunk] = numbers[ends].movedim(1, 2)

    def _compared(self, x: _Side, y: _Side) -> Tensor:
        """Return what the batch tells about some pairs, ``(NUM_ROWS, p)``."""
        found = torch.full((NUM_ROWS, len(x.scale)), torch.nan, dtype=torch.float64, device=x.scale.device)
        found[SIZE] = n = x.grams.u.shape[-1]
        found[AGREEMENT] = agreement = dots(x.found.vectors, y.found.vectors).square()
        found[WHOLE : WHOLE + 3] = whole = torch.stack([u_products(x.grams, y.grams), x.found.squares, y.found.squares])
        if not self._unbiased:
            d, e = x.grams.diagonal, y.grams.diagonal
            found[WHOLE : WHOLE + 3] += torch.stack([diagonal_part(*each) for each in ((d, e), (d, d), (e, e))])
        if len(chosen := (agreement >= MIN_AGREEMENT).nonzero().flatten()):
            k, ell = x.grams.select(chosen), y.grams.select(chosen)
            a, b = (direction(side.found.values[chosen], side.found.vectors[chosen]) for side in (x, y))
            remaining = products_without(k, ell, a, b, whole[:, chosen], unbiased=self._unbiased)
            found[WITHOUT : WITHOUT + 3, chosen] = remaining
            hidden = cka_of_sums(remaining.unbind()) < MAX_REMAINING
            if len(chosen := chosen[hidden & (cka_of_sums(whole[:, chosen].unbind()) >= MIN_HIGH_CKA)]):
                hats = [Ridge().vectors(first_packed(side.packed, chosen)) for side in (x, y)]
                found[RIDGE : RIDGE + 3, chosen] = partner_products(*hats)
        for place, side in enumerate((x, y)):
            lower, separation = side.found.lower, side.found.separation
            found[SEPARATION + place] = separation
            found[MEMBERS + place] = torch.where(lower > n / 2, n - lower, -lower).double()
            if len(chosen := (separation >= MIN_SEPARATION).nonzero().flatten()):
                k, ell = x.grams.select(chosen), y.grams.select(chosen)
                groups = side.found.groups(chosen)
                a, b = between_groups(k, groups), between_groups(ell, groups)
                remaining = products_without(k, ell, a, b, whole[:, chosen], unbiased=self._unbiased)
                row = WITHIN + 3 * place
                found[row : row + 3, chosen] = remaining
        scales = torch.stack([x.scale * y.scale, x.scale.square(), y.scale.square()]).square()
        of_cka = slice(WHOLE, NEIGHBORS)
        found[of_cka] = found[of_cka].view(-1, 3, len(x.scale)).mul(scales).flatten(0, 1)
        neighbors = MutualKNN().num_neighbors(n)
        found[NEIGHBORS] = (x.found.neighbors & y.found.neighbors).sum((1, 2))
        found[NEIGHBORS + 1 : NEIGHBORS + 3] = n * neighbors
        found[NEIGHBORS : NEIGHBORS + 3] -= n * neighbors**2 / (n - 1)  # Those in common by chance.
        return found

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


class _Side(NamedTuple):
    """One side of p pairs: Gram matrices of the first samples, and their leading directions."""

    grams: CenteredGrams
    """Gram matrices, in float64."""
    scale: Tensor
    """Their scales, ``(p,)``."""
    found: Directions
    """The leading directions."""
    packed: PackedGrams
    """Gram matrices of all samples."""


def _side(grams: PackedGrams, found: Directions, layers: slice | list[int]) -> _Side:
    """Return one side of some pairs, from the Gram matrices and directions of all layers of its model."""
    return _Side(
        first_grams(grams, layers).double(),
        grams.scales[layers].double(),
        found.select(layers),
        select_layers(grams, layers),
    )
