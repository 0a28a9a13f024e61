"""The median squared distances of a bank, which fix the bandwidths of RBF kernels."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.hsic.kernel_grams import median_squared_distances
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.runtime.collectives import gather_rows, synchronized_errors


class Bandwidths(NamedTuple):
    """What fixes the bandwidths of RBF kernels for L layers."""

    medians: Tensor
    """Mean over the batches of all processes of their median squared distances, ``(L,)`` in float64."""
    changes: dict[int, Tensor]
    """By index of each batch: the relative change ``(L,)`` of this mean without the batch."""


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
        self._bandwidths: Bandwidths | None = None

    def compute(self, index: int, grams: PackedGrams) -> None:
        """Compute the medians of one batch, on the device of its Gram matrices."""
        self._by_batch[index] = median_squared_distances(grams).to("cpu", torch.float64)

    def forget(self, index: int) -> None:
        """Forget the medians of one batch, whose Gram matrices have changed, and with them the mean."""
        self._by_batch.pop(index, None)
        self._bandwidths = None

    def bandwidths(self, batches: Mapping[int, BankBatch], device: torch.device, *, distributed: bool) -> Bandwidths:
        """Return the mean over the batches of all processes, and how it changes without each of them.

        Medians of ``nan`` are left out. A layer without any other median has ``nan``.

        Args:
            batches: Batches of this process, by index.
            device: The device that the processes communicate through.
            distributed: Whether there are other processes. Then every process must call this method.
        """
        if self._bandwidths is None:
            with synchronized_errors(device, "compute bandwidths") if distributed else nullcontext():
                for index in batches.keys() - self._by_batch.keys():
                    self.compute(index, batches[index].grams)
            own = torch.zeros(len(batches), 1 + self._num_layers, dtype=torch.float64, device="cpu")
            for row, index in enumerate(batches):
                own[row, 0] = index
                own[row, 1:] = self._by_batch[index]
            rows = gather_rows(own.to(device), distributed=distributed)
            self._bandwidths = _bandwidths(rows[rows[:, 0].argsort()])
        return self._bandwidths


def _bandwidths(rows: Tensor) -> Bandwidths:
    """Return the bandwidths from rows ``(k, 1 + L)`` of the batches' indices and medians."""
    indices, medians = rows[:, 0], rows[:, 1:]
    is_usable = ~medians.isnan()
    known = medians.where(is_usable, torch.zeros_like(medians))
    mean = known.sum(0) / is_usable.sum(0)
    others = is_usable.sum(0) - is_usable.to(torch.int64)
    without = (known.sum(0) - known) / others
    changes = (without / mean - 1).where(is_usable & (others > 0), torch.zeros_like(medians))
    return Bandwidths(mean, dict(zip(map(int, indices.tolist()), changes, strict=True)))
