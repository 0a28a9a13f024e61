"""`Comparison`: one model and several references, by several measures, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from lightning_cka.compare.copied_inputs import CopiedInputs
from lightning_cka.compare.flags import Flag, Thresholds
from lightning_cka.compare.measure_comparison import MeasureComparison
from lightning_cka.compare.pair import Outcome
from lightning_cka.compare.pairing import Pairing
from lightning_cka.compare.without_sample import Named
from lightning_cka.hsic.measure import CKA, Measure
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.sample_selection import SampleSelection
from lightning_cka.probe.token_clusters import TokenClusters
from lightning_cka.runtime.collectives import synchronized_errors
from lightning_cka.runtime.devices import sums_device


class Comparison:
    """Compares one model with the banks of its references, while the model is shown the probe set.

    It holds a `MeasureComparison` for each measure, and this a `ModelPair` for each reference. Measures without a
    bandwidth take each batch at once. For kernels with one, the batches are kept until `results` is called, since the
    bandwidths follow from all batches of the probe set, those of other processes included. Measures other than CKA also
    need the batches at the end, to leave out the samples that the flags of linear CKA name.

    Args:
        layers: Names of the model's layers.
        banks: Gram banks by reference name; None compares the model with itself.
        measures: Measures by name.
        device: Device of the Gram matrices.
        model_name: Name of the model for titles and axis labels.
        thresholds: Thresholds of the flags; None: the defaults.
        sample_kind: Kind of the sample numbers; see `lightning_cka.diagnostics.Diagnostics`.
        distributed: Whether several processes share the batches. Then all of them must call `results`. Otherwise this
            process has all batches, even if a process group exists.
        execution_order: Names of layers in the order in which they ran, of this model or of references. Empty: the
            order of the layers.
        keep_all_pairs: Whether the results keep what differences need for all pairs of layers; see `LeftOutBatches`.
        bank: Empty bank to fill with the model's Gram matrices. It may also be among ``banks``: then the model is
            compared with itself as with another model.
        selection: Which samples are compared, and in which groups. None: all of them.
        pairings: Which layers are paired with those of a reference, by its name. Without one: layers of the same names.

    Attributes:
        sample_kind: Kind of the sample numbers.
        message: A warning about samples that were left out, after `results`; empty if there are none.
    """

    def __init__(
        self,
        layers: tuple[str, ...],
        banks: Mapping[str, GramBank | None],
        measures: Mapping[str, Measure],
        device: torch.device,
        *,
        model_name: str = "model",
        thresholds: Thresholds | None = None,
        sample_kind: str = "sample",
        distributed: bool = False,
        execution_order: Sequence[str] = (),
        keep_all_pairs: bool = False,
        bank: GramBank | None = None,
        selection: SampleSelection | None = None,
        pairings: Mapping[str, Pairing] | None = None,
    ) -> None:
        self.sample_kind = sample_kind
        self._clusters = TokenClusters(sample_kind)
        self._selection = (selection or SampleSelection(None, None)).of_kind(sample_kind)
        self._whole_bank = None
        if not self._selection.is_whole:
            whole, self._whole_bank, bank = bank, bank, GramBank(layers, model_name, sample_kind)
            banks = {
                name: bank if other is whole and other is not None else other and self._selection.bank(other)
                for name, other in banks.items()
            }
        self.message = ""
        self._copies = CopiedInputs()
        self._device = device
        self._model_name = model_name
        self._distributed = distributed
        self._reference_names = tuple(banks)
        self._thresholds = thresholds or Thresholds()
        self._by_measure = {
            key: MeasureComparison(
                layers,
                banks,
                measure,
                device,
                distributed=distributed,
                execution_order=execution_order,
                keep_all_pairs=keep_all_pairs,
                pairings=pairings,
            )
            for key, measure in _with_linear_cka(measures, banks).items()
        }
        self._keys = tuple(measures)
        self._has_bandwidth = any(measure.needs_median for measure in measures.values())
        self._leaves_out = _needs_linear_cka(measures, banks)
        if bank is None and (self._has_bandwidth or self._leaves_out):
            bank = GramBank(layers, model_name, sample_kind)
        self._bank = bank

    def add(self, batch: BankBatch) -> None:
        """Add one batch of the model's linear Gram matrices."""
        if self._whole_bank is not None:
            self._whole_bank.add(batch)
        for part in self._selection.parts(batch):
            self._add_part(self._clusters.mark(part))

    def _add_part(self, batch: BankBatch) -> None:
        self._copies.add(batch)
        if self._bank is not None:
            (self._bank.add_with_medians if self._has_bandwidth else self._bank.add)(batch)
        for comparison in self._by_measure.values():
            if not comparison.measure.needs_median:
                comparison.add(batch, self._bank)

    def results(self, flags: Sequence[Flag] = (), **attributes: Any) -> dict[tuple[str, str], Outcome]:
        """Return the outcomes. Call this once, on every process: it adds the batches of kernels with a bandwidth.

        Args:
            flags: Flags of the model's layers that were found elsewhere.
            **attributes: Attributes of the `CKAResult`s.

        Returns:
            Outcomes by name of the reference and of the measure.
        """
        self.message = self._selection.message(sums_device(self._device), distributed=self._distributed)
        copies = self._copies.flags(self._thresholds, sums_device(self._device), distributed=self._distributed)
        flags = (*flags, *copies)
        self._add_kept_batches()
        named: dict[str, Named] = {}
        by_measure: dict[str, dict[str, Outcome]] = {}
        # CKA comes first: its flags name the samples that the other measures leave out.
        for key, comparison in sorted(self._by_measure.items(), key=lambda item: not _is_linear_cka(item[1].measure)):
            by_measure[key] = comparison.outcomes(
                self._thresholds, self.sample_kind, flags, named, model_name=self._model_name, **attributes
            )
            if _is_linear_cka(comparison.measure) and self._leaves_out and self._bank is not None:
                named = {name: _named(outcome, self._bank) for name, outcome in by_measure[key].items()}
        return {(name, key): by_measure[key][name] for name in self._reference_names for key in self._keys}

    def _add_kept_batches(self) -> None:
        if self._bank is None:
            return
        device = sums_device(self._device)
        waiting = [comparison for comparison in self._by_measure.values() if comparison.measure.needs_median]
        for comparison in waiting:
            comparison.fix_bandwidths(self._bank.bandwidths(device, distributed=self._distributed))
        # From here to the end of the block, processes do not communicate. So one of them may fail alone.
        with synchronized_errors(device, "compare its batches") if self._distributed else nullcontext():
            for comparison in waiting:
                for batch in self._bank:
                    grams = PackedGrams(*(part.to(self._device) for part in batch.grams))
                    comparison.add(replace(batch, grams=grams))


_LINEAR = CKA()


def _is_linear_cka(measure: Measure) -> bool:
    return measure == _LINEAR


def _needs_linear_cka(measures: Mapping[str, Measure], banks: Mapping[str, GramBank | None]) -> bool:
    """Whether some measures leave out samples that the flags of linear CKA name."""
    has_references = any(bank is not None for bank in banks.values())
    return has_references and not all(isinstance(measure, CKA) for measure in measures.values())


def _with_linear_cka(measures: Mapping[str, Measure], banks: Mapping[str, GramBank | None]) -> dict[str, Measure]:
    """Return the measures, and linear CKA if others need its flags."""
    if not _needs_linear_cka(measures, banks) or any(map(_is_linear_cka, measures.values())):
        return dict(measures)
    return {**measures, "": _LINEAR}


def _named(outcome: Outcome, bank: GramBank) -> Named:
    result = outcome.result
    return Named.by_flags(result.flags, {} if result.self_comparison else result.same_named_pairs(), bank)
