"""`ModelPair`: one model and one reference, compared by one measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.bad_samples import BadSamples
from lightning_cka.compare.bandwidth_gradient import BandwidthGradient, shifted_grams
from lightning_cka.compare.batch_products import (
    AllProducts,
    BatchProducts,
    batch_identity,
    gathered_products,
    with_jackknife_errors,
)
from lightning_cka.compare.cka_checks import Checked, CKAChecks
from lightning_cka.compare.diagnostics import Diagnostics, LayerDiagnostics
from lightning_cka.compare.find_flags import find_flags
from lightning_cka.compare.flags import INPUT, Flag, Thresholds
from lightning_cka.compare.layer_statistics import LayerStatistics
from lightning_cka.compare.minibatch_measure import MinibatchMeasure
from lightning_cka.compare.pair_flags import influence_flags, standard_errors_of_layers
from lightning_cka.compare.pairing import Pairing
from lightning_cka.compare.partners import partners
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.without_sample import Named
from lightning_cka.hsic.measure import CKA, Measure
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.products import Vectors
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.bank_medians import Bandwidths
from lightning_cka.runtime.devices import cpu_by_default


class MeasuredBatch(NamedTuple):
    """One batch of the model, and what a measure makes of it."""

    batch: BankBatch
    """The batch, with linear Gram matrices."""
    grams: PackedGrams
    """Gram matrices of the measure; see `Measure.grams`."""
    vectors: Vectors
    """Vectors of the measure."""
    shifted: PackedGrams | None = None
    """Gram matrices with other bandwidths, for `BandwidthGradient.add`; None: the batch is not added there."""


class Outcome(NamedTuple):
    """The result of one model, one reference and one measure, and the problems that were found."""

    result: CKAResult
    undefined_layers: dict[str, list[str]]
    """Names of the layers whose values are ``nan``, by reason."""
    num_mismatched: int
    """Number of batches that this process skipped because the reference was shown other inputs."""


class ModelPair:
    """Accumulates the similarity of one model and one reference, by one measure.

    Args:
        layers: Names of the model's layers.
        bank: Gram bank of the reference; None compares the model with itself.
        measure: Makes vectors of both models' Gram matrices.
        device: Device of the sums.
        distributed: Whether several processes share the batches.
        execution_order: Names of layers in the order in which they ran.
        keep_all_pairs: Whether the result keeps what differences need for all pairs of layers; see `LeftOutBatches`.
        pairing: The reference's layer of each layer. None: layers of the same names.
    """

    def __init__(
        self,
        layers: tuple[str, ...],
        bank: GramBank | None,
        measure: Measure,
        device: torch.device,
        *,
        distributed: bool,
        execution_order: Sequence[str] = (),
        keep_all_pairs: bool = False,
        pairing: Pairing | None = None,
    ) -> None:
        reference_layers = layers if bank is None else bank.layers
        self._pairing = pairing or Pairing.of_same_names(layers, reference_layers)
        self._bank = bank
        self._measure = measure
        self._device = device
        self._distributed = distributed
        self._keep_all_pairs = keep_all_pairs
        self._bandwidths: Bandwidths | None = None
        self._reference_bandwidths: Bandwidths | None = None
        with cpu_by_default():  # A metric makes its states on the default device.
            metric = MinibatchMeasure(layers, reference_layers, measure=measure, sync_on_compute=distributed)
        self._metric = metric.to(device)
        self._reference_statistics = None if bank is None else LayerStatistics(bank.layers, device, execution_order)
        self._pairs = partners(layers, None if bank is None else bank.layers, self._pairing.layers)
        self._checks: CKAChecks | None = None
        if isinstance(measure, CKA):
            unbiased = measure.unbiased
            self._checks = CKAChecks(layers, reference_layers, self._pairs, device, unbiased=unbiased)
            self._gradient = BandwidthGradient(len(layers), len(reference_layers), device, unbiased=unbiased)
        self._products: list[BatchProducts] = []
        self._num_mismatched = 0

    def fix_bandwidths(self, bandwidths: Bandwidths) -> None:
        """Fix the kernel's bandwidths by the medians of the model's batches, and those of the bank's."""
        bank, device = self._bank, bandwidths.medians.device
        self._bandwidths = bandwidths
        self._reference_bandwidths = (
            bandwidths if bank is None else bank.bandwidths(device, distributed=self._distributed)
        )

    def add(self, measured: MeasuredBatch, device: torch.device) -> None:
        """Add one batch.

        Args:
            measured: The model's side.
            device: Device of the Gram matrices.
        """
        batch = measured.batch
        reference_grams = reference_vectors = shifted = directions = None
        if self._bank is not None and self._reference_statistics is not None:
            linear = self._bank.get(batch.index, batch.fingerprint, device)
            if linear is None:
                self._num_mismatched += 1
                return
            medians = None if self._reference_bandwidths is None else self._reference_bandwidths.medians
            reference_grams = self._measure.grams(linear, medians)
            reference_vectors = self._bank.vectors.of(self._measure, batch.index, reference_grams)
            other = self._bank.batches[batch.index]
            directions = other.directions if reference_grams is linear else None
            if medians is not None and measured.shifted is not None and isinstance(self._measure, CKA):
                shifted = shifted_grams(self._measure, linear, medians)
            bad_inputs = batch.bad_inputs + other.bad_inputs
            self._reference_statistics.add(linear, reference_grams, batch.samples, bad_inputs, other.sums)
        products, n = measured.vectors.products(reference_vectors), measured.vectors.num_samples
        self._metric.add_products(*products, n)
        identity, weight = batch_identity(batch.samples, batch.fingerprint), self._measure.weight(n)
        place = batch.index if batch.cluster is None else batch.cluster
        self._products.append(BatchProducts(place, batch.index, identity, weight, products))
        if measured.shifted is not None:
            grams = measured.grams
            self._gradient.add(grams, measured.shifted, reference_grams or grams, shifted or measured.shifted)
        if self._checks is not None:
            self._checks.add(batch, measured.grams, reference_grams, directions)

    def outcome(
        self,
        layers: dict[str, LayerDiagnostics],
        bad_samples: BadSamples,
        thresholds: Thresholds,
        sample_kind: str,
        flags: Sequence[Flag],
        named: Named | None = None,
        **attributes: Any,
    ) -> Outcome:
        """Return the result, with diagnostics and flags. Every process must call this.

        Args:
            layers: Diagnostics of the model's layers.
            bad_samples: Samples that make the model's layers undefined.
            thresholds: Thresholds of the flags.
            sample_kind: Kind of the sample numbers; see `Diagnostics`.
            flags: Flags of the model's layers that were found elsewhere.
            named: Samples without which the measure is computed again. None for CKA, which has a closed form.
            **attributes: Attributes of the `CKAResult`.
        """
        metric, distributed, statistics = self._metric, self._distributed, self._reference_statistics
        reference_layers, bad_in_reference = {}, bad_samples._replace(places={})
        if statistics is not None:
            reference_layers = statistics.result(distributed=distributed)
            bad_in_reference = statistics.bad_samples(distributed=distributed)
        with metric.sync_context(should_sync=distributed):
            undefined = metric.undefined_layers(
                self._bandwidths and self._bandwidths.medians,
                self._reference_bandwidths and self._reference_bandwidths.medians,
                bad_samples.reasons,
                bad_in_reference.reasons,
            )
            result = metric.as_result(self_comparison=self._bank is None, pairing=self._pairing, **attributes)
            sums = (metric.pair_sum, metric.layer_sum, metric.reference_sum)
        checked = self._checked(sums, named)
        shape = (len(metric.layers), len(metric.reference_layers))
        products = gathered_products(self._products, shape, self._device, distributed=distributed)
        result = with_jackknife_errors(
            result, products, self._of_bandwidths(products), keep_all_pairs=self._keep_all_pairs
        )
        is_known = bad_samples.names_inputs_of(bad_in_reference)  # Both models have the same inputs, as a rule.
        of_samples = find_flags(
            layers if self._checks else {},
            thresholds,
            leave_one_out=checked.leave_one_out,
            standard_errors=standard_errors_of_layers(result.standard_error, self._pairs, metric.layers),
            influences=checked.influences,
        )
        found = (
            *flags,
            *bad_samples.flags(of_reference=False),
            *bad_in_reference.flags(of_reference=True, known=[INPUT] if is_known else []),
            *checked.flags(self._pairs, metric.layers, thresholds),
            *of_samples,
            *influence_flags(checked.influences, thresholds, of_samples),
            *find_flags(
                reference_layers if self._checks else {},
                thresholds,
                influences=checked.reference_influences,
                of_reference=True,
            ),
        )
        diagnostics = Diagnostics(layers, reference_layers, checked.leave_one_out, found, sample_kind)
        return Outcome(replace(result, diagnostics=diagnostics), undefined, self._num_mismatched)

    def _checked(self, sums: tuple[Tensor, Tensor, Tensor], named: Named | None) -> Checked:
        """Return what single samples and directions contribute. Every process must call this."""
        if self._checks is not None:
            rows, columns = self._pairs
            of_pairs = (sums[0][rows, columns], sums[1][rows], sums[2][columns])
            return self._checks.result(self._names_of_pairs(), of_pairs, distributed=self._distributed)
        if named is None or self._bank is None:
            return Checked({}, {}, {}, [])
        return Checked(named.without(self._measure, self._bank, sums, distributed=self._distributed), {}, {}, [])

    def _of_bandwidths(self, products: AllProducts) -> Tensor | None:
        """Return by how much values change because bandwidths change; None without bandwidths."""
        if self._bandwidths is None or self._reference_bandwidths is None:
            return None
        bandwidths = (self._bandwidths, self._reference_bandwidths)
        return self._gradient.changes(products.members, *bandwidths, distributed=self._distributed)

    def _names_of_pairs(self) -> list[str | None]:
        """Return the name of the model's layer for pairs of `Pairing`, and None for other pairs."""
        if self._bank is None:
            return [None] * len(self._pairs.rows)
        layers, others, paired = self._metric.layers, self._bank.layers, self._pairing.layers
        pairs = [(layers[row], others[column]) for row, column in zip(*self._pairs, strict=True)]
        return [name if paired.get(name) == other else None for name, other in pairs]
