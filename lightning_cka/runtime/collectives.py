"""Communication between processes. Either every process calls one of these functions, or none does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


def all_reduce_sum(tensor: Tensor, *, distributed: bool) -> Tensor:
    """Return the sum of a tensor over all processes, on each of them.

    Args:
        tensor: Tensor of this process; see `all_gather`.
        distributed: False: return the tensor itself.
    """
    return torch.stack(all_gather(tensor, distributed=distributed)).sum(0)


def all_gather(tensor: Tensor, *, distributed: bool) -> list[Tensor]:
    """Return the tensors of all processes in the order of their ranks, on each process.

    Args:
        tensor: Tensor of this process, on the process group's device. All processes must use the same shape.
        distributed: False: return this process's tensor only, even if a process group exists.
    """
    if not distributed or not _has_process_group():
        return [tensor]
    tensor = tensor.contiguous()
    gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, tensor)
    return gathered


def gather_rows(rows: Tensor, *, distributed: bool) -> Tensor:
    """Return the rows of all processes, in the order of their ranks, on each process.

    Args:
        rows: Rows of this process, ``(k, m)``. Each process may have another number of rows, also none.
        distributed: False: return this process's rows only, even if a process group exists.
    """
    counts = all_gather(torch.tensor([len(rows)], device=rows.device), distributed=distributed)
    sizes = [int(count) for count in counts]
    # Processes exchange equally many rows, and then cut the rest.
    padded = torch.cat([rows, rows.new_zeros(max(sizes) - len(rows), rows.shape[1])])
    gathered = all_gather(padded, distributed=distributed)
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])


def gather_objects(value: Any, *, distributed: bool) -> list[Any]:
    """Return the values of all processes in the order of their ranks on rank 0, and an empty list elsewhere.

    Args:
        value: Picklable value of this process.
        distributed: False: return this process's value only.
    """
    if not distributed or not _has_process_group():
        return [value]
    values: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, values)
    return values or []


def all_gather_objects(value: T) -> list[T]:
    """Return the values of all processes in the order of their ranks, on each process.

    Args:
        value: Picklable value of this process.
    """
    if not _has_process_group():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def all_gather_bool(value: bool, device: torch.device) -> list[bool]:
    """Return the booleans of all processes in the order of their ranks, on each process.

    Args:
        value: Boolean of this process.
        device: The process group's device.
    """
    return [bool(gathered) for gathered in all_gather(torch.tensor(value, device=device), distributed=True)]


@contextmanager
def synchronized_errors(device: torch.device, action: str) -> Iterator[None]:
    """Raise on all processes if the block raises on one, so that no process waits for one that has failed.

    The processes exchange their outcomes at the end of the block.

    Args:
        device: The process group's device.
        action: What the block does, for the message on the other processes; completes "process 1 could not".

    Raises:
        RuntimeError: The block failed on another process. Errors of this process are raised unchanged.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # noqa: BLE001  # Raised below, after the other processes have been notified.
        failure = error
    failed = all_gather_bool(failure is not None, device)
    if any(failed):
        # A process that raises and ends at once cuts the others' exchange off: each waits until all have its outcome.
        with suppress(RuntimeError):
            all_gather_bool(True, device)
    if failure is not None:
        raise failure
    if ranks := [rank for rank, has_failed in enumerate(failed) if has_failed]:
        raise RuntimeError(f"process {', '.join(map(str, ranks))} could not {action}; see its error")


def in_lockstep(batches: Iterator[T], device: torch.device) -> Iterator[T | None]:
    """Yield this process's batches, then None while another process still has batches.

    Each process gets the same number of items, as collective forward passes require.

    Args:
        batches: Batches of this process. An error that they raise is raised here, after the last item of all
            processes. An error of the forward pass itself is not delayed: it ends this process and then the others.
        device: The process group's device.
    """
    failure: Exception | None = None
    while True:
        batch = None
        try:
            batch = next(batches, None) if failure is None else None
        except Exception as error:  # noqa: BLE001  # Raised below: the other processes still wait for this one.
            failure = error
        if not any(all_gather_bool(batch is not None, device)):
            break
        yield batch
    if failure is not None:
        raise failure


def _has_process_group() -> bool:
    return dist.is_available() and dist.is_initialized()
