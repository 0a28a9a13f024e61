"""`GramBank`: the Gram matrices of one model on one probe set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_cka.collectives import all_reduce_sum
from lightning_cka.kernels import median_squared_distances
from lightning_cka.packed import PackedGrams


@dataclass(frozen=True)
class ShownBatch:
    """One probe batch, as a model saw it."""

    index: int
    """Its place in the probe set."""
    grams: PackedGrams
    """Linear Gram matrices of all layers."""
    fingerprint: str
    """Hash of the inputs."""
    samples: tuple[int, ...]
    """The numbers of its samples; see `lightning_cka.probe.ProbeBatch`."""


class GramBank:
    """What is kept of a model that was shown the probe set: Gram matrices, in host memory.

    Takes ``4 L (n (n + 3) / 2 + 1)`` bytes per batch of n samples, for L layers in float32. Under several
    processes each one's bank holds the batches that it was shown.

    Args:
        layers: names of the layers, in the order of the Gram matrices' rows.
        model_name: for titles and axis labels.

    Attributes:
        batches: by their place in the probe set.
        sample_kind: what the samples' numbers are.
    """

    def __init__(self, layers: tuple[str, ...], model_name: str, sample_kind: str = "sample") -> None:
        self.layers = layers
        self.model_name = model_name
        self.sample_kind = sample_kind
        self.batches: dict[int, ShownBatch] = {}
        self._medians: Tensor | None = None

    def add(self, batch: ShownBatch) -> None:
        """Keep a copy of one batch."""
        grams = PackedGrams(*(part.to("cpu", copy=True) for part in batch.grams))
        self.batches[batch.index] = replace(batch, grams=grams)
        self._medians = None

    def get(self, index: int, fingerprint: str, device: torch.device) -> PackedGrams | None:
        """One batch's Gram matrices, on ``device``; None if it is not there or its inputs were not the same."""
        batch = self.batches.get(index)
        if batch is None or batch.fingerprint != fingerprint:
            return None
        return PackedGrams(*(part.to(device) for part in batch.grams))

    def __iter__(self) -> Iterator[ShownBatch]:
        """The batches, in order."""
        return (self.batches[index] for index in sorted(self.batches))

    def medians(self, device: torch.device, *, distributed: bool) -> Tensor:
        """Median squared distances ``(L,)`` of the probe set's first batch, that fix the bandwidths of kernels.

        Args:
            device: the one that the processes talk through.
            distributed: the processes' banks are parts of one, and all of them ask, at first and ever after.
        """
        if self._medians is None:
            first = self.batches.get(0)
            found = torch.zeros(len(self.layers), dtype=torch.float64)
            if first is not None:
                found = median_squared_distances(first.grams)
            self._medians = all_reduce_sum(found.to(device), distributed=distributed)
        return self._medians

    @property
    def num_samples(self) -> int:
        """Number of samples in the bank."""
        return sum(batch.grams.num_samples for batch in self.batches.values())
