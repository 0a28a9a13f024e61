"""The device of float64 sums, and transfers from the host to a device."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def sums_device(device: torch.device) -> torch.device:
    """Return the device that keeps float64 sums: the given one, or the CPU for MPS, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device, without waiting on CUDA.

    Not waiting is safe there: CUDA has read pageable memory when the call returns.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


@contextmanager
def cpu_by_default(generators: Iterable[torch.Generator] = ()) -> Iterator[None]:
    """Make tensors on the CPU where code names no device, whatever `torch.set_default_device` is.

    Args:
        generators: Random generators that the code draws from. If one is not on the CPU, the default device stays: a
            generator fills only tensors of its own device.
    """
    if torch.get_default_device().type == "cpu" or any(g.device.type != "cpu" for g in generators):
        yield
        return
    with torch.device("cpu"):
        yield


def total_memory(device: torch.device) -> int | None:
    """Return the size of a device's memory in bytes; None if it is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu" or not hasattr(os, "sysconf"):  # Windows has no such function.
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
