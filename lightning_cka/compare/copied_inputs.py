"""Count the probe samples whose inputs are copies of another sample's."""

from __future__ import annotations

import torch

from lightning_cka.compare.flags import INPUT, Flag, Thresholds
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.input_hashes import groups_of_copies
from lightning_cka.runtime.collectives import all_reduce_sum, gather_rows

MAX_NAMED = 8
"""Number of samples that are named."""


class CopiedInputs:
    """Collects the hashes of the samples' inputs, batch by batch."""

    def __init__(self) -> None:
        self._hashes: dict[int, int] = {}
        self._num_samples = 0

    def add(self, batch: BankBatch) -> None:
        """Add one batch. A bank of an older version has no hashes. Of tokens, the first draw of sequences counts."""
        if batch.cluster not in (None, batch.index):
            return
        self._num_samples += len(batch.samples)
        if batch.input_hashes:
            self._hashes.update(zip(batch.samples, batch.input_hashes, strict=True))

    def flags(self, thresholds: Thresholds, device: torch.device, *, distributed: bool) -> list[Flag]:
        """Return a flag if too many samples have the inputs of another sample.

        Args:
            thresholds: Thresholds of the flags.
            device: The device that the processes communicate through.
            distributed: Whether several processes share the batches. Then all of them must call this.
        """
        own = torch.tensor([*self._hashes.items()], dtype=torch.int64, device=device).reshape(-1, 2)
        samples, hashes = gather_rows(own, distributed=distributed).T.tolist()
        size = torch.tensor(float(self._num_samples), dtype=torch.float64, device=device)
        total = float(all_reduce_sum(size, distributed=distributed))
        groups = groups_of_copies(samples, hashes)
        count = sum(len(group) - 1 for group in groups)
        if thresholds.copies is None or not count > thresholds.copies * total:
            return []
        return [Flag(INPUT, "copies", float(count), thresholds.copies, tuple(groups[0][:MAX_NAMED]))]
