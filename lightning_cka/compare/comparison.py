"""`Comparison`: the CKA of a model with other banks of Gram matrices, as the model is shown the probe set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_cka.compare.flags import Flag, Thresholds
from lightning_cka.compare.layer_statistics import ModelDiagnostics
from lightning_cka.compare.pair import Outcome, Pair
from lightning_cka.hsic.kernel_grams import apply_kernel
from lightning_cka.hsic.kernels import Kernel, kernel_name, needs_median
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.runtime.devices import sums_device


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
                    name: Pair(layers, bank, kernel, self._sums_device, unbiased=unbiased, distributed=distributed)
                    for name, bank in banks.items()
                },
            )
            for key, kernel in kernels.items()
        }

    def add(self, batch: BankBatch) -> None:
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

    def _compare(self, key: str, batch: BankBatch, medians: Tensor | None) -> None:
        model, pairs = self._of_kernel[key]
        grams = apply_kernel(self._kernels[key], batch.grams, medians)
        model.add(batch.grams, grams, batch.samples)
        for pair in pairs.values():
            pair.add(batch, grams, self._device)
