"""What processes tell each other. Every process must call these functions, or none."""

from __future__ import annotations

from typing import Any

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


def _has_processes() -> bool:
    return dist.is_available() and dist.is_initialized()


def sums_device(device: torch.device) -> torch.device:
    """Where float64 sums are kept: the host for the one kind of device that does not have float64."""
    return torch.device("cpu") if device.type == "mps" else device
