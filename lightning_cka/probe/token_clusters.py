"""`TokenClusters`: which batches depend on each other, because their samples are tokens of the same sequences."""

from __future__ import annotations

from dataclasses import replace

from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.tokens import sequences_of


class TokenClusters:
    """Marks batches of tokens of the same sequences. Pass it all batches of a process, in order.

    Args:
        sample_kind: What the numbers of the samples are.
    """

    def __init__(self, sample_kind: str) -> None:
        self._sample_kind = sample_kind
        self._first: dict[tuple[int, ...], int] = {}

    def mark(self, batch: BankBatch) -> BankBatch:
        """Return the batch with the index of the first one of the same sequences, if its samples are tokens."""
        sequences = sequences_of(batch.samples, self._sample_kind)
        return batch if sequences is None else replace(batch, cluster=self._first.setdefault(sequences, batch.index))
