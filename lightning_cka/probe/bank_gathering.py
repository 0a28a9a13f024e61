"""Combine the parts of a bank that is split over processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.runtime.collectives import all_gather, gather_objects


def gather_batches(batches: Sequence[BankBatch], device: torch.device, *, distributed: bool) -> list[BankBatch] | None:
    """Gather batches on the first process. Every process must call this function.

    Args:
        batches: Batches of this process.
        device: The device that the processes communicate through.
        distributed: Whether there are other processes.

    Returns:
        The batches of all processes on the first process; None on the others, and if there are no batches.
    """
    counts = all_gather(torch.tensor([len(batches)], device=device), distributed=distributed)
    gathered: list[BankBatch] = []
    is_first = False
    # One batch per process at a time, to bound the size of a message.
    for i in range(max(int(count) for count in counts)):
        received = gather_objects(batches[i] if i < len(batches) else None, distributed=distributed)
        is_first = bool(received)
        gathered += [batch for batch in received if batch is not None]
    return gathered if is_first else None
