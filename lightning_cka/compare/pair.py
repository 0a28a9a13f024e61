"""`ModelPair`: the CKA of one model with one reference, through one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from lightning_cka.compare.bad_samples import BadSamples
from lightning_cka.compare.bandwidth_gradient import STEP, BandwidthGradient
from lightning_cka.compare.batch_products import (
    BatchProducts,
    batch_identity,
    gathered_products,
    with_jackknife_errors,
)
from lightning_cka.compare.diagnostics import Diagnostics, LayerDiagnostics
from lightning_cka.compare.find_flags import find_flags
from lightning_cka.compare.flags import INPUT, Flag, Thresholds
from lightning_cka.compare.influence import (
    BatchRecord,
    leave_one_out,
    leave_one_out_reductions,
)
from lightning_cka.compare.influential_samples import influential_samples
from lightning_cka.compare.layer_statistics import LayerStatistics
from lightning_cka.compare.leading_directions import LeadingDirections
from lightning_cka.compare.metric import MinibatchCKA
from lightning_cka.compare.pair_flags import direction_flags, influence_flags, influences_of_layers
from lightning_cka.compare.partners import names_of_pairs, partners
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.first_directions import FirstDirections
from lightning_cka.hsic.kernel_grams import apply_kernel
from lightning_cka.hsic.kernels import Kernel
from lightning_cka.hsic.packed import PackedGrams, select_layers
from lightning_cka.hsic.products import hsic_products
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.bank_medians import Bandwidths
from lightning_cka.runtime.devices import cpu_by_default


class Outcome(NamedTuple):
    """The result of one model, one reference and one kernel, and the problems that were found."""

    result: CKAResult
    undefined_layers: dict[str, list[str]]
    """Names of the layers whose CKA is ``nan``, by reason."""
    num_mismatched: int
    """Number of batches that this process skipped because the reference was shown other inputs."""


class ModelPair:
    """Accumulates the CKA of one model with one reference, through one kernel.

    Args:
        layers: Names of the model's layers.
        bank: Gram bank of the reference; None compares the model with itself.
        kernel: Kernel of both models' Gram matrices.
        device: Device of the sums.
        unbiased: Whether to use the unbiased HSIC.
        distributed: Whether several processes share the batches.
        execution_order: Names of layers in the order in which they ran.
        keep_all_pairs: Whether the result keeps what differences need for all pairs of layers; see `LeftOutBatches`.
    """

    def __init__(
        self,
        layers: tuple[str, ...],
        bank: GramBank | None,
        kernel: Kernel,
        device: torch.device,
        *,
        unbiased: bool,
        distributed: bool,
        execution_order: Sequence[str] = (),
        keep_all_pairs: bool = False,
    ) -> None:
        reference_layers = layers if bank is None else bank.layers
        self._bank = bank
        self._kernel = kernel
        self._device = device
        self._distributed = distributed
        self._keep_all_pairs = keep_all_pairs
        self._bandwidths: Bandwidths | None = None
        self._reference_bandwidths: Bandwidths | None = None
        self._gradient = BandwidthGradient(len(layers), len(reference_layers), device, unbiased=unbiased)
        # The Gram matrices that it receives are already those of the kernel.
        with cpu_by_default():  # A metric makes its states on the default device.
            metric = MinibatchCKA(
                layers, reference_layers, kernel="precomputed", unbiased=unbiased, sync_on_compute=distributed
            )
        self._metric = metric.to(device)
        self._reference_statistics = None if bank is None else LayerStatistics(bank.layers, device, execution_order)
        self._pairs = partners(layers, None if bank is None else bank.layers)
        self._rows = _indices(self._pairs.rows, len(layers))
        self._columns = _indices(self._pairs.columns, len(reference_layers))
        self._directions = LeadingDirections(self._pairs, device, unbiased=unbiased)
        self._records: list[BatchRecord] = []
        self._products: list[BatchProducts] = []
        self._num_mismatched = 0

    def fix_bandwidths(self, bandwidths: Bandwidths) -> None:
        """Fix the kernel's bandwidths by the medians of the model's batches, and those of the bank's."""
        bank, device = self._bank, bandwidths.medians.device
        self._bandwidths = bandwidths
        self._reference_bandwidths = (
            bandwidths if bank is None else bank.bandwidths(device, distributed=self._distributed)
        )

    def add(
        self,
        batch: BankBatch,
        grams: PackedGrams,
        device: torch.device,
        shifted: PackedGrams | None = None,
        directions: FirstDirections | None = None,
    ) -> None:
        """Add one batch.

        Args:
            batch: Batch of the model, with linear Gram matrices.
            grams: Gram matrices of the kernel for this batch.
            device: Device of the Gram matrices.
            shifted: The same with other bandwidths, for `BandwidthGradient.add`; None: the batch is not added there.
            directions: Leading directions of ``grams``, if they are shared with other pairs.
        """
        reference_grams, shifted_reference, reference_directions = None, shifted, None
        if self._bank is not None and self._reference_statistics is not None:
            linear = self._bank.get(batch.index, batch.fingerprint, device)
            if linear is None:
                self._num_mismatched += 1
                return
            medians = None if self._reference_bandwidths is None else self._reference_bandwidths.medians
            apply = partial(apply_kernel, self._kernel, linear, unbiased=self._metric.unbiased)
            reference_grams = apply(medians)
            if reference_grams is linear:
                reference_directions = self._bank.batches[batch.index].directions
            if medians is not None and shifted is not None:
                shifted_reference = apply(medians * (1 + STEP))
            self._reference_statistics.add(linear, reference_grams, batch.samples, batch.bad_inputs)
        unbiased = self._metric.unbiased
        products = hsic_products(grams, reference_grams, unbiased=unbiased)
        self._metric.add_products(*products, grams.num_samples)
        identity, weight = batch_identity(batch.samples, batch.fingerprint), self._metric.weight(grams.num_samples)
        place = batch.index if batch.cluster is None else batch.cluster
        self._products.append(BatchProducts(place, batch.index, identity, weight, products))
        if shifted is not None and shifted_reference is not None:
            self._gradient.add(grams, shifted, reference_grams or grams, shifted_reference)
        reductions = leave_one_out_reductions(
            select_layers(grams, self._rows), select_layers(reference_grams or grams, self._columns), unbiased=unbiased
        )
        self._directions.add(batch.index, grams, reference_grams, batch.samples, directions, reference_directions)
        eps = torch.finfo(batch.grams.halves.dtype).eps
        self._records.append(BatchRecord(batch.samples, reductions, eps))

    def outcome(
        self,
        layers: dict[str, LayerDiagnostics],
        bad_samples: BadSamples,
        thresholds: Thresholds,
        sample_kind: str,
        flags: Sequence[Flag],
        **attributes: Any,
    ) -> Outcome:
        """Return the result, with diagnostics and flags. Every process must call this.

        Args:
            layers: Diagnostics of the model's layers.
            bad_samples: Samples that make the model's layers undefined.
            thresholds: Thresholds of the flags.
            sample_kind: Kind of the sample numbers; see `Diagnostics`.
            flags: Flags of the model's layers that were found elsewhere.
            **attributes: Attributes of the `CKAResult`.
        """
        metric, distributed = self._metric, self._distributed
        statistics = self._reference_statistics
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
            result = metric.as_result(self_comparison=self._bank is None, **attributes)
            layer_sum, reference_sum = metric.layer_sum, metric.reference_sum
            sums = (
                metric.pair_sum[self._pairs.rows, self._pairs.columns],
                layer_sum[self._rows],
                reference_sum[self._columns],
            )
            changes = leave_one_out(
                self._records,
                names_of_pairs(self._pairs, metric.layers, None if self._bank is None else self._bank.layers),
                sums,
                distributed=distributed,
            )
            influences = influential_samples(self._records, sums, distributed=distributed)
        directions = self._directions.result(distributed=distributed)
        shape = (len(metric.layers), len(metric.reference_layers))
        products = gathered_products(self._products, shape, self._device, distributed=distributed)
        if self._bandwidths is not None and self._reference_bandwidths is not None:
            bandwidths = (self._bandwidths, self._reference_bandwidths)
            of_bandwidths = self._gradient.changes(products.members, *bandwidths, distributed=distributed)
        else:
            of_bandwidths = None
        result = with_jackknife_errors(result, products, of_bandwidths, keep_all_pairs=self._keep_all_pairs)
        is_known = INPUT in bad_samples.places  # Both models have the same inputs.
        own, others = influences_of_layers(influences, self._pairs, metric.layers, metric.reference_layers)
        of_samples = find_flags(
            layers,
            thresholds,
            leave_one_out=changes,
            standard_errors=_largest_standard_errors(result),
            influences=own,
        )
        found = (
            *flags,
            *bad_samples.flags(of_reference=False),
            *bad_in_reference.flags(of_reference=True, known=[INPUT] if is_known else []),
            *direction_flags(directions, self._pairs, metric.layers, thresholds),
            *of_samples,
            *influence_flags(own, thresholds, of_samples),
            *find_flags(reference_layers, thresholds, influences=others, of_reference=True),
        )
        diagnostics = Diagnostics(layers, reference_layers, changes, found, sample_kind)
        return Outcome(replace(result, diagnostics=diagnostics), undefined, self._num_mismatched)


def _indices(indices: list[int], count: int) -> list[int] | slice:
    """Return indices; for all of ``count`` layers a slice, which copies nothing."""
    return slice(None) if indices == list(range(count)) else indices


def _largest_standard_errors(result: CKAResult) -> dict[str, float]:
    """Return for each layer the largest standard error of its CKA values; ``nan`` counts as 0."""
    errors = result.standard_error
    if errors is None:
        return {}
    return dict(zip(result.layers, errors.nan_to_num(0.0).amax(1).tolist(), strict=True))
