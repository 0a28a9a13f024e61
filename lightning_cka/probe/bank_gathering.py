"""Combine the parts of a bank that is split over processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_cka.hsic.kernel_grams import median_squared_distances
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.runtime.collectives import all_gather, all_reduce_sum, gather_objects


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


def first_batch_medians(
    batches: Mapping[int, BankBatch], num_layers: int, device: torch.device, *, distributed: bool
) -> Tensor:
    """Return the median squared distances ``(L,)`` of the first batch. Every process must call this function.

    Args:
        batches: Batches of this process, by index.
        num_layers: Number of layers L.
        device: The device that the processes communicate through.
        distributed: Whether there are other processes.
    """
    # The first batch of an aligned bank may have an index above 0. Such banks are not split over processes.
    first = batches.get(0 if distributed else min(batches, default=0))
    medians = torch.zeros(num_layers, dtype=torch.float64, device="cpu")
    if first is not None:
        medians = median_squared_distances(first.grams)
    return all_reduce_sum(medians.to(device), distributed=distributed)
