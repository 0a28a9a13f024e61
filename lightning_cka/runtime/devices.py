"""Which device keeps the sums, and how tensors get there."""

from __future__ import annotations

import torch
from torch import Tensor


def sums_device(device: torch.device) -> torch.device:
    """Where float64 sums are kept: the host for the one kind of device that does not have float64."""
    return torch.device("cpu") if device.type == "mps" else device


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's memory on a device, without waiting where that is safe: CUDA has read pageable memory."""
    return tensor.to(device, non_blocking=device.type == "cuda")
