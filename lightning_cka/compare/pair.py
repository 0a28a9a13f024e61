"""One model against one Gram bank, through one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.diagnostics import Diagnostics, LayerDiagnostics
from lightning_cka.compare.find_flags import find_flags
from lightning_cka.compare.flags import Flag, Thresholds
from lightning_cka.compare.influence import BatchRecord, leave_one_out, losses, mean_standard_error
from lightning_cka.compare.layer_statistics import ModelDiagnostics
from lightning_cka.compare.metric import MinibatchCKA
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.kernel_grams import apply_kernel
from lightning_cka.hsic.kernels import Kernel
from lightning_cka.hsic.packed import PackedGrams, select_layers
from lightning_cka.hsic.products import hsic_products
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.runtime.devices import cpu_by_default


class Outcome(NamedTuple):
    """The result of one pair of models through one kernel, and what there is to be warned of."""

    result: CKAResult
    undefined_layers: dict[str, list[str]]
    """Layers whose CKA is ``nan``, by reason."""
    num_mismatched: int
    """Batches left out, on this process, because the reference was not shown the same inputs."""


class Pair:
    """One model against one bank, through one kernel."""

    def __init__(
        self,
        layers: tuple[str, ...],
        bank: GramBank | None,
        kernel: Kernel,
        device: torch.device,
        *,
        unbiased: bool,
        distributed: bool,
    ) -> None:
        self._bank = bank
        self._kernel = kernel
        self._distributed = distributed
        self._medians: tuple[Tensor | None, Tensor | None] = (None, None)
        # The kernel is applied before, once for all banks.
        with cpu_by_default():  # A metric makes its states on the default device.
            metric = MinibatchCKA(
                layers,
                None if bank is None else bank.layers,
                kernel="precomputed",
                unbiased=unbiased,
                sync_on_compute=distributed,
            )
        self._metric = metric.to(device)
        self._reference = None if bank is None else ModelDiagnostics(bank.layers, device)
        self._same_named = [] if bank is None else [name for name in layers if name in bank.layers]
        self._rows = _places(self._same_named, layers)
        self._columns = _places(self._same_named, layers if bank is None else bank.layers)
        self._records: list[BatchRecord] = []
        self._num_mismatched = 0

    def fix_bandwidths(self, medians: Tensor) -> None:
        """Take the medians of the model's first batch, and those of the bank's."""
        bank = self._bank
        other = medians if bank is None else bank.medians(medians.device, distributed=self._distributed)
        self._medians = (medians, other)

    def add(self, batch: BankBatch, grams: PackedGrams, device: torch.device) -> None:
        """Take one batch of the model's Gram matrices, of this kernel."""
        metric, other, linear = self._metric, None, None
        if self._bank is not None:
            linear = self._bank.get(batch.index, batch.fingerprint, device)
            if linear is None:
                self._num_mismatched += 1
                return
            other = apply_kernel(self._kernel, linear, self._medians[1])
        if self._reference is not None and linear is not None and other is not None:
            self._reference.add(linear, other, batch.samples)
        products = hsic_products(grams, other, unbiased=metric.unbiased)
        metric.add_products(*products, grams.num_samples)
        x, y = select_layers(grams, self._rows), select_layers(other or grams, self._columns)
        eps = torch.finfo(batch.grams.halves.dtype).eps
        self._records.append(BatchRecord(batch.samples, products, losses(x, y, unbiased=metric.unbiased), eps))

    def outcome(
        self,
        layers: dict[str, LayerDiagnostics],
        thresholds: Thresholds,
        sample_kind: str,
        found: Sequence[Flag],
        **attributes: Any,
    ) -> Outcome:
        """The result, and what there is to be warned of. Every process must ask."""
        metric, distributed = self._metric, self._distributed
        reference_layers = self._reference.result(distributed=distributed) if self._reference else {}
        with metric.sync_context(should_sync=distributed):
            undefined = metric.undefined_for(*self._medians)
            result = metric.as_result(self_comparison=self._bank is None, **attributes)
            a, b = metric.layer_sum, metric.reference_sum
            changes = leave_one_out(
                self._records,
                self._same_named,
                (metric.pair_sum[self._rows][:, self._columns].diagonal(), a[self._rows], b[self._columns]),
                distributed=distributed,
            )
            mean_error = mean_standard_error(
                self._records,
                result.mean_cells().to(a.device),
                metric.matrix(),
                (a, b),
                metric.effective_batches(),
                distributed=distributed,
            )
        flags = list(found)
        flags += find_flags(layers, thresholds, leave_one_out=changes, standard_errors=_largest_errors(result))
        flags += find_flags(reference_layers, thresholds, of_reference=True)
        diagnostics = Diagnostics(layers, reference_layers, changes, tuple(flags), sample_kind)
        result = replace(result, mean_standard_error=mean_error, diagnostics=diagnostics)
        return Outcome(result, undefined, self._num_mismatched)


def _places(names: list[str], layers: tuple[str, ...]) -> list[int] | slice:
    """Where the names are among the layers; all of them, if so, which costs no copy."""
    places = [layers.index(name) for name in names]
    return slice(None) if places == list(range(len(layers))) else places


def _largest_errors(result: CKAResult) -> dict[str, float]:
    """By layer: the largest standard error of its CKA with any layer of the reference, of those that there are."""
    errors = result.standard_error
    if errors is None:
        return {}
    return dict(zip(result.layers, errors.nan_to_num(0.0).amax(1).tolist(), strict=True))
