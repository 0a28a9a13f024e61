"""`GramBank`: the Gram matrices of one model on one probe set."""

from __future__ import annotations

import torch

from lightning_cka.packed import PackedGrams


class GramBank:
    """What is kept of a model that was shown the probe set: Gram matrices, in host memory.

    Takes ``4 L (n (n + 1) / 2 + 1)`` bytes per batch of n samples, for L layers in float32. Under several
    processes each one's bank holds the batches that it was shown.

    Args:
        layers: names of the layers, in the order of the Gram matrices' rows.
        model_name: for titles and axis labels.

    Attributes:
        batches: Gram matrices by the batch's place in the probe set.
        fingerprints: hashes of the inputs, likewise.
    """

    def __init__(self, layers: tuple[str, ...], model_name: str) -> None:
        self.layers = layers
        self.model_name = model_name
        self.batches: dict[int, PackedGrams] = {}
        self.fingerprints: dict[int, str] = {}

    def add(self, index: int, grams: PackedGrams, fingerprint: str) -> None:
        """Keep one batch.

        Args:
            index: the batch's place in the probe set.
            grams: of all layers; copied.
            fingerprint: hash of the inputs.
        """
        self.batches[index] = PackedGrams(*(part.to("cpu", copy=True) for part in grams))
        self.fingerprints[index] = fingerprint

    def get(self, index: int, fingerprint: str, device: torch.device) -> PackedGrams | None:
        """One batch, on ``device``; None if it is not there or its inputs were not the same."""
        if self.fingerprints.get(index) != fingerprint:
            return None
        grams = self.batches[index]
        return PackedGrams(*(part.to(device) for part in grams))

    @property
    def num_samples(self) -> int:
        """Number of samples in the bank."""
        return sum(grams.num_samples for grams in self.batches.values())
