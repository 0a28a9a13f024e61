"""`BlockInputs`: what a bank keeps of the inputs of one Gram block."""

from __future__ import annotations

from typing import Any

from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.probe.bad_inputs import BadInputs
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.fingerprint import BlockFingerprint
from lightning_cka.probe.probe_set import ProbeBatch


class BlockInputs:
    """The samples of a Gram block, a hash of their inputs, and which of them are not finite.

    Args:
        num_samples: Number of samples in the block.
    """

    def __init__(self, num_samples: int) -> None:
        self._samples: tuple[int, ...] = ()
        self._bad: tuple[int, ...] = ()
        self._fingerprint = BlockFingerprint(num_samples)

    def add(self, batch: ProbeBatch, data: Any, shown: Any) -> None:
        """Add the inputs of one forward pass.

        Args:
            batch: The batch.
            data: Its data on the device.
            shown: The part of the data that the model gets.
        """
        bad = BadInputs(shown, batch.num_samples)  # The accelerator computes it while the CPU goes on.
        self._fingerprint.add(data, batch.num_samples, batch.start)
        self._bad += bad.among(batch.samples)
        self._samples += batch.samples

    def with_grams(self, index: int, grams: PackedGrams) -> BankBatch:
        """Return the block of a bank.

        Args:
            index: Index of the block in the probe set.
            grams: The Gram matrices of its layers.
        """
        return BankBatch(index, grams, self._fingerprint.hexdigest(), self._samples, self._bad)
