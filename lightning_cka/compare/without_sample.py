"""The values of a measure without single samples, computed from the Gram matrices of the other samples.

`lightning_cka.compare.influence` has a closed form, which holds for CKA only: without a sample, neighbours, ranks and
hat matrices of the others change. So only those samples are left out that the flags of CKA name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.diagnostics import LeaveOneOut
from lightning_cka.compare.flags import Flag
from lightning_cka.compare.influence import cka_of_sums
from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.hsic.measure import Measure
from lightning_cka.hsic.packed import PackedGrams, select_layers
from lightning_cka.hsic.subset import select_samples
from lightning_cka.probe.bank import GramBank
from lightning_cka.runtime.collectives import all_reduce_sum

_REASONS = ("trace_ratio", "leave_one_out", "influence")
"""Flags that single samples cause."""


class Candidate(NamedTuple):
    """A sample to leave out of the comparison of one layer with the layer of the same name."""

    layer: str
    row: int
    column: int
    sample: int


class Named(NamedTuple):
    """The samples that the flags of CKA name, and the model's Gram matrices."""

    candidates: list[Candidate]
    """The same on all processes."""
    bank: GramBank
    """Linear Gram matrices of this process's batches."""

    @classmethod
    def by_flags(cls, flags: Sequence[Flag], pairs: Mapping[str, tuple[int, int]], bank: GramBank) -> Named:
        """Return the samples that flags name, for layers that have a partner.

        Args:
            flags: Flags of the CKA with one reference.
            pairs: Row and column of each layer that both models have.
            bank: Linear Gram matrices of the model on this process's batches.
        """
        found = [
            Candidate(flag.layer, *pairs[flag.layer], sample)
            for flag in flags
            if flag.reason in _REASONS and flag.layer in pairs
            for sample in flag.samples
        ]
        return cls(list(dict.fromkeys(found)), bank)

    def without(
        self, measure: Measure, reference: GramBank, sums: tuple[Tensor, Tensor, Tensor], *, distributed: bool
    ) -> dict[str, LeaveOneOut]:
        """Return for each layer the sample without which the value changes most, of those that flags name.

        Args:
            measure: The measure.
            reference: Linear Gram matrices of the reference.
            sums: <v, w> ``(L, R)``, <v, v> ``(L,)`` and <w, w> ``(R,)`` over all batches of all processes.
            distributed: Whether several processes share the batches. Then all of them must call this.
        """
        if not self.candidates:
            return {}
        pairs, layers, references = (total.cpu() for total in sums)
        # A process without the sample contributes zero.
        values = torch.zeros(len(self.candidates), dtype=torch.float64, device="cpu")
        for place, (_, row, column, sample) in enumerate(self.candidates):
            for batch in self.bank:
                other = reference.batches.get(batch.index)
                if sample in batch.samples and other is not None:
                    sides = (select_layers(batch.grams, [row]), select_layers(other.grams, [column]))
                    of_pair = (pairs[row, column], layers[row], references[column])
                    reductions = _reductions(measure, sides, batch.samples.index(sample))
                    values[place] = cka_of_sums([one - less for one, less in zip(of_pair, reductions, strict=True)])
        values = all_reduce_sum(values.to(sums[0]), distributed=distributed).cpu()
        found: dict[str, LeaveOneOut] = {}
        for (layer, row, column, sample), without in zip(self.candidates, values.tolist(), strict=True):
            value = float(cka_of_sums((pairs[row, column], layers[row], references[column])))
            if isnan(value):
                continue  # Without the sample, too: the sums of the others are not known.
            change = abs(without - value)
            # A change of nan is the largest.
            if layer not in found or not change <= found[layer].change:
                found[layer] = LeaveOneOut(sample, without, change)
        return found


def _reductions(measure: Measure, sides: tuple[PackedGrams, PackedGrams], place: int) -> list[Tensor]:
    """Return by how much the three products of one pair of layers decrease without one sample of the batch."""
    n = sides[0].num_samples
    whole = _products(measure, sides)
    if n - 1 < MIN_SAMPLES:
        return whole  # What remains is too small a batch, and is skipped.
    others = [other for other in range(n) if other != place]
    without = _products(measure, (select_samples(sides[0], others), select_samples(sides[1], others)))
    return [one - other for one, other in zip(whole, without, strict=True)]


def _products(measure: Measure, sides: tuple[PackedGrams, PackedGrams]) -> list[Tensor]:
    own, other = (measure.vectors(measure.grams(side)) for side in sides)
    return [part.flatten()[0].cpu() for part in own.products(other)]
