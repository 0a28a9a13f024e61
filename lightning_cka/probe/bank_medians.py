"""The median squared distances of a bank, which fix the bandwidths of RBF kernels."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from lightning_cka.hsic.kernel_grams import median_squared_distances
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.runtime.collectives import all_reduce_sum, synchronized_errors


class BankMedians:
    """The mean over a bank's batches of their median squared distances. It is computed once.

    Each batch has its own median over all n^2 entries. One batch alone would make the bandwidth a noisy number, and
    no error bar shows that noise.

    Args:
        num_layers: Number of layers L.
    """

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._by_batch: dict[int, Tensor] = {}
        self._mean: Tensor | None = None

    def compute(self, index: int, grams: PackedGrams) -> None:
        """Compute the medians of one batch, on the device of its Gram matrices."""
        self._by_batch[index] = median_squared_distances(grams).to("cpu", torch.float64)

    def forget(self, index: int) -> None:
        """Forget the medians of one batch, whose Gram matrices have changed, and with them the mean."""
        self._by_batch.pop(index, None)
        self._mean = None

    def mean(self, batches: Mapping[int, BankBatch], device: torch.device, *, distributed: bool) -> Tensor:
        """Return the mean over the batches of all processes, ``(L,)`` in float64.

        Medians of ``nan`` are left out. A layer without any other median has ``nan``.

        Args:
            batches: Batches of this process, by index.
            device: The device that the processes communicate through.
            distributed: Whether there are other processes. Then every process must call this method.
        """
        if self._mean is None:
            with synchronized_errors(device, "compute bandwidths") if distributed else nullcontext():
                for index in batches.keys() - self._by_batch.keys():
                    self.compute(index, batches[index].grams)
            own = torch.zeros(2, self._num_layers, dtype=torch.float64, device="cpu")
            for index in sorted(batches):
                medians = self._by_batch[index]
                own += torch.stack([medians.nan_to_num(0.0, torch.inf), (~medians.isnan()).to(medians)])
            total, count = all_reduce_sum(own.to(device), distributed=distributed)
            self._mean = total / count
        return self._mean
