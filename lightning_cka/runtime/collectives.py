"""What processes tell each other. Every process must call these functions, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist


def all_reduce_sum(tensor: Tensor, *, distributed: bool) -> Tensor:
    """The sum over processes, on each of them; the tensor itself if there is one process."""
    return torch.stack(all_gather(tensor, distributed=distributed)).sum(0)


def all_gather(tensor: Tensor, *, distributed: bool) -> list[Tensor]:
    """The tensors of all processes, which must have one shape, on each of them.

    Args:
        tensor: of this process, on the device that the processes talk through.
        distributed: False: there are no others, whether or not a process group exists.
    """
    if not distributed or not _has_processes():
        return [tensor]
    tensor = tensor.contiguous()
    gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, tensor)
    return gathered


def gather_objects(value: Any, *, distributed: bool) -> list[Any]:
    """The picklable values of all processes, in the order of their ranks, on the first one; elsewhere nothing."""
    if not distributed or not _has_processes():
        return [value]
    values: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, values)
    return values or []


def on_each_process(condition: bool, device: torch.device) -> list[bool]:
    """Whether it is so on each process, in the order of their ranks."""
    return [bool(told) for told in all_gather(torch.tensor(condition, device=device), distributed=True)]


@contextmanager
def failing_together(device: torch.device, what: str) -> Iterator[None]:
    """An error on one process is one on all of them, once each is through: none waits for one that is gone.

    Args:
        device: that the processes talk through.
        what: is done here, for the message on the others.

    Raises:
        RuntimeError: another process failed. This one's own errors are raised as they are.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # noqa: BLE001  # Raised below, once the others know.
        failure = error
    failed = on_each_process(failure is not None, device)
    if failure is not None:
        raise failure
    if ranks := [rank for rank, has_failed in enumerate(failed) if has_failed]:
        raise RuntimeError(f"process {', '.join(map(str, ranks))} could not {what}; see the error that it raised")


def _has_processes() -> bool:
    return dist.is_available() and dist.is_initialized()


T = TypeVar("T")


def in_step(batches: Iterator[T], device: torch.device) -> Iterator[T | None]:
    """This process's batches, and then None for as long as another process still has some.

    Args:
        batches: of this process. An error that they raise is raised here once all processes are through. (One of the
            forward pass itself cannot wait for that: its process ends, and the others with it.)
        device: that the processes talk through.
    """
    failure: Exception | None = None
    while True:
        batch = None
        try:
            batch = next(batches, None) if failure is None else None
        except Exception as error:  # noqa: BLE001  # Raised below: the others would wait for this process.
            failure = error
        if not any(on_each_process(batch is not None, device)):
            break
        yield batch
    if failure is not None:
        raise failure
