"""`CKAChecks`: what single samples and single directions contribute to the CKA of some pairs of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.diagnostics import LeaveOneOut
from lightning_cka.compare.direction_statistics import DirectionStatistics
from lightning_cka.compare.disagreement import disagreement_flags
from lightning_cka.compare.flags import Flag, Thresholds
from lightning_cka.compare.influence import BatchRecord, leave_one_out, leave_one_out_reductions
from lightning_cka.compare.influential_samples import influential_samples
from lightning_cka.compare.leading_directions import LeadingDirections
from lightning_cka.compare.pair_flags import Influences, direction_flags, influences_of_layers
from lightning_cka.compare.partners import Partners
from lightning_cka.hsic.first_directions import FirstDirections
from lightning_cka.hsic.packed import PackedGrams, select_layers
from lightning_cka.probe.bank_batch import BankBatch


class Checked(NamedTuple):
    """What the checks have found."""

    leave_one_out: dict[str, LeaveOneOut]
    """For each layer, the sample without which its CKA with the layer of the same name changes most."""
    influences: Influences
    """By layer of the model and by sample, the change of CKA without the sample."""
    reference_influences: Influences
    """By layer of the reference."""
    directions: list[DirectionStatistics]
    names: Sequence[str | None] = ()
    """Names of the pairs whose layers have the same name; None for the others."""

    def flags(self, pairs: Partners, layers: Sequence[str], thresholds: Thresholds) -> list[Flag]:
        """Return flags of directions, groups and second opinions; none for measures other than CKA."""
        if not self.directions:
            return []
        return [
            *direction_flags(self.directions, pairs, layers, thresholds),
            *disagreement_flags(self.directions, self.names, self.leave_one_out, thresholds),
        ]


class CKAChecks:
    """Collects what samples and directions contribute to CKA, batch by batch.

    Args:
        layers: Names of the model's layers.
        reference_layers: Names of the reference's layers.
        pairs: The pairs of layers that are looked at.
        device: Device of the numbers.
        unbiased: Whether the HSIC is unbiased.
    """

    def __init__(
        self,
        layers: tuple[str, ...],
        reference_layers: tuple[str, ...],
        pairs: Partners,
        device: torch.device,
        *,
        unbiased: bool,
    ) -> None:
        self._layers, self._reference_layers, self._pairs = layers, reference_layers, pairs
        self._unbiased = unbiased
        self._rows = _indices(pairs.rows, len(layers))
        self._columns = _indices(pairs.columns, len(reference_layers))
        self._directions = LeadingDirections(pairs, device, unbiased=unbiased)
        self._records: list[BatchRecord] = []

    def add(
        self,
        batch: BankBatch,
        grams: PackedGrams,
        reference_grams: PackedGrams | None,
        of_reference: FirstDirections | None = None,
    ) -> None:
        """Add one batch.

        Args:
            batch: Batch of the model, with linear Gram matrices.
            grams: Gram matrices of the kernel.
            reference_grams: Those of the reference; None: the model is compared with itself.
            of_reference: Directions of the reference's batch, if they are kept for later comparisons.
        """
        reductions = leave_one_out_reductions(
            select_layers(grams, self._rows),
            select_layers(reference_grams or grams, self._columns),
            unbiased=self._unbiased,
        )
        own = batch.directions if grams is batch.grams else None
        self._directions.add(batch.index, grams, reference_grams, batch.samples, own, of_reference)
        eps = torch.finfo(batch.grams.halves.dtype).eps
        self._records.append(BatchRecord(batch.samples, reductions, eps))

    def result(self, names: Sequence[str | None], sums: tuple[Tensor, Tensor, Tensor], *, distributed: bool) -> Checked:
        """Return what was found. If processes share the batches, all of them must call this.

        Args:
            names: Names of the pairs for `Checked.leave_one_out`. None: leave out the pair.
            sums: <K, L>, <K, K> and <L, L> of the P pairs, ``(P,)``, summed over all batches of all processes.
            distributed: Whether several processes share the batches.
        """
        changes = leave_one_out(self._records, names, sums, distributed=distributed)
        influences = influential_samples(self._records, sums, distributed=distributed)
        own, others = influences_of_layers(influences, self._pairs, self._layers, self._reference_layers)
        return Checked(changes, own, others, self._directions.result(distributed=distributed), names)


def _indices(indices: list[int], count: int) -> list[int] | slice:
    """Return indices; for all of ``count`` layers a slice, which copies nothing."""
    return slice(None) if indices == list(range(count)) else indices
