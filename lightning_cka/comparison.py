"""`Comparison`: the CKA of a model with other banks of Gram matrices, as the model is shown the probe set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_cka.bank import GramBank, ShownBatch
from lightning_cka.collectives import sums_device
from lightning_cka.diagnostics import Diagnostics, LayerDiagnostics, ModelDiagnostics, find_flags
from lightning_cka.flags import Flag, Thresholds
from lightning_cka.influence import BatchRecord, leave_one_out, losses, mean_standard_error
from lightning_cka.kernels import Kernel, apply_kernel, kernel_name, needs_median
from lightning_cka.metric import MinibatchCKA
from lightning_cka.packed import PackedGrams, hsic_products, select_layers
from lightning_cka.result import CKAResult


class Comparison:
    """Compares one model, as it is shown the probe set, with several banks, through several kernels.

    Args:
        layers: of the model.
        banks: by reference name; None: the model is compared with itself.
        kernels: by name.
        device: of the Gram matrices.
        model_name: for titles and axis labels.
        unbiased: see `MinibatchCKA`.
        thresholds: of the flags.
        sample_kind: see `lightning_cka.diagnostics.Diagnostics`.
        distributed: each process of several has a share of the batches, and all of them ask for the
            results. Otherwise this process has all of them, whatever others there are.
        bank: an empty one, to be filled with the model's Gram matrices. It may be among ``banks``: then the model
            is compared with itself as with another one.

    Attributes:
        sample_kind: what the samples' numbers are.
    """

    def __init__(
        self,
        layers: tuple[str, ...],
        banks: Mapping[str, GramBank | None],
        kernels: Mapping[str, Kernel],
        device: torch.device,
        *,
        model_name: str = "model",
        unbiased: bool = True,
        thresholds: Thresholds | None = None,
        sample_kind: str = "sample",
        distributed: bool = False,
        bank: GramBank | None = None,
    ) -> None:
        self._device = device
        self._model_name = model_name
        self._sums_device = sums_device(device)
        self._distributed = distributed
        self._banks = dict(banks)
        self._kernels = dict(kernels)
        self._thresholds = thresholds or Thresholds()
        self.sample_kind = sample_kind
        if bank is None and any(needs_median(kernel) for kernel in kernels.values()):
            bank = GramBank(layers, model_name, sample_kind)
        self._bank = bank
        self._of_kernel = {
            key: (
                ModelDiagnostics(layers, self._sums_device),
                {
                    name: _Pair(layers, bank, kernel, self._sums_device, unbiased=unbiased, distributed=distributed)
                    for name, bank in banks.items()
                },
            )
            for key, kernel in kernels.items()
        }

    def add(self, batch: ShownBatch) -> None:
        """Take one batch of the model's Gram matrices."""
        if self._bank is not None:
            self._bank.add(batch)
        for key, kernel in self._kernels.items():
            if not needs_median(kernel):
                self._compare(key, batch, None)

    def results(self, flags: Sequence[Flag] = (), **attributes: Any) -> dict[tuple[str, str], Outcome]:
        """What came out, by names of reference and kernel. Ask once: kernels with a bandwidth are evaluated now.

        Args:
            flags: of the model's layers, that were found elsewhere.
            **attributes: of the `CKAResult`s.
        """
        for key, kernel in self._kernels.items():
            if needs_median(kernel) and self._bank is not None:
                medians = self._bank.medians(self._sums_device, distributed=self._distributed)
                for pair in self._of_kernel[key][1].values():
                    pair.fix_bandwidths(medians)
                for batch in self._bank:
                    grams = PackedGrams(*(part.to(self._device) for part in batch.grams))
                    self._compare(key, replace(batch, grams=grams), medians)
        outcomes = {}
        for key, (model, pairs) in self._of_kernel.items():
            layers = model.result(distributed=self._distributed)
            for name, pair in pairs.items():
                outcomes[name, key] = pair.outcome(
                    layers,
                    self._thresholds,
                    self.sample_kind,
                    flags,
                    kernel=kernel_name(self._kernels[key]),
                    model_name=self._model_name,
                    reference_name=name,
                    **attributes,
                )
        return {(name, key): outcomes[name, key] for name in self._banks for key in self._kernels}

    def _compare(self, key: str, batch: ShownBatch, medians: Tensor | None) -> None:
        model, pairs = self._of_kernel[key]
        grams = apply_kernel(self._kernels[key], batch.grams, medians)
        model.add(batch.grams, grams, batch.samples)
        for pair in pairs.values():
            pair.add(batch, grams, self._device)


class Outcome(NamedTuple):
    """The result of one pair of models through one kernel, and what there is to be warned of."""

    result: CKAResult
    undefined_layers: dict[str, list[str]]
    """Layers whose CKA is ``nan``, by reason."""
    num_mismatched: int
    """Batches left out, on this process, because the reference was not shown the same inputs."""


class _Pair:
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
        self._metric = MinibatchCKA(
            layers,
            None if bank is None else bank.layers,
            kernel="precomputed",
            unbiased=unbiased,
            sync_on_compute=distributed,
        ).to(device)
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

    def add(self, batch: ShownBatch, grams: PackedGrams, device: torch.device) -> None:
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
            result = metric.as_result(within=self._bank is None, **attributes)
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
