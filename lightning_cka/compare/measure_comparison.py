"""`MeasureComparison`: one model with all its references, by one measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lightning_cka.compare.bandwidth_gradient import NUM_BATCHES, shifted_grams
from lightning_cka.compare.flags import Flag, Thresholds
from lightning_cka.compare.layer_statistics import LayerStatistics
from lightning_cka.compare.pair import MeasuredBatch, ModelPair, Outcome
from lightning_cka.compare.pairing import Pairing
from lightning_cka.compare.without_sample import Named
from lightning_cka.hsic.measure import CKA, Measure
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.bank_medians import Bandwidths
from lightning_cka.probe.bank_vectors import BankVectors
from lightning_cka.runtime.devices import sums_device


class MeasureComparison:
    """Makes vectors of the model's Gram matrices, and passes them to a `ModelPair` for each reference.

    Args:
        layers: Names of the model's layers.
        banks: Gram banks by reference name; None compares the model with itself.
        measure: Makes vectors of Gram matrices.
        device: Device of the Gram matrices.
        distributed: Whether several processes share the batches.
        execution_order: Names of layers in the order in which they ran.
        keep_all_pairs: As for `ModelPair`.
        pairings: As for `ModelPair`, by reference name.
    """

    def __init__(
        self,
        layers: tuple[str, ...],
        banks: Mapping[str, GramBank | None],
        measure: Measure,
        device: torch.device,
        *,
        distributed: bool,
        execution_order: Sequence[str] = (),
        keep_all_pairs: bool = False,
        pairings: Mapping[str, Pairing] | None = None,
    ) -> None:
        self.measure = measure
        self._device = device
        self._distributed = distributed
        self._bandwidths: Bandwidths | None = None
        self._statistics = LayerStatistics(layers, sums_device(device), execution_order)
        self._pairs = {
            name: ModelPair(
                layers,
                bank,
                measure,
                sums_device(device),
                distributed=distributed,
                execution_order=execution_order,
                keep_all_pairs=keep_all_pairs,
                pairing=(pairings or {}).get(name),
            )
            for name, bank in banks.items()
        }

    def fix_bandwidths(self, bandwidths: Bandwidths) -> None:
        """Fix the kernel's bandwidths by the median squared distances of the model's batches."""
        self._bandwidths = bandwidths
        for pair in self._pairs.values():
            pair.fix_bandwidths(bandwidths)

    def add(self, batch: BankBatch, bank: GramBank | None = None) -> None:
        """Add one batch of the model, with linear Gram matrices.

        Args:
            batch: The batch.
            bank: Bank that has the batch, and may keep its vectors; None: there is none.
        """
        medians = None if self._bandwidths is None else self._bandwidths.medians
        grams = self.measure.grams(batch.grams, medians)
        shifted = None
        if medians is not None and batch.index < NUM_BATCHES and isinstance(self.measure, CKA):
            shifted = shifted_grams(self.measure, batch.grams, medians)
        self._statistics.add(batch.grams, grams, batch.samples, batch.bad_inputs, batch.sums)
        vectors = (BankVectors() if bank is None else bank.vectors).of(self.measure, batch.index, grams)
        measured = MeasuredBatch(batch, grams, vectors, shifted)
        for pair in self._pairs.values():
            pair.add(measured, self._device)

    def outcomes(
        self,
        thresholds: Thresholds,
        sample_kind: str,
        flags: Sequence[Flag],
        named: Mapping[str, Named],
        **attributes: Any,
    ) -> dict[str, Outcome]:
        """Return the outcomes by reference name. Every process must call this.

        Args:
            thresholds: Thresholds of the flags.
            sample_kind: Kind of the sample numbers; see `lightning_cka.diagnostics.Diagnostics`.
            flags: Flags of the model's layers that were found elsewhere.
            named: Samples that the flags of CKA name, by reference name; see `ModelPair.outcome`.
            **attributes: Attributes of the `CKAResult`s.
        """
        layers = self._statistics.result(distributed=self._distributed)
        bad_samples = self._statistics.bad_samples(distributed=self._distributed)
        return {
            name: pair.outcome(
                layers,
                bad_samples,
                thresholds,
                sample_kind,
                flags,
                named.get(name),
                reference_name=name,
                **attributes,
            )
            for name, pair in self._pairs.items()
        }
