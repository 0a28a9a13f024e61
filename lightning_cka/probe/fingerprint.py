"""A hash of a batch's inputs, to see that a model gets the same inputs again."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from lightning_cka.runtime.nested import tensors_in


def fingerprint(data: Any) -> str:
    """Hash of a batch's shapes and of some thousands of its values, to see that it is the same again."""
    digest = hashlib.blake2b(digest_size=16)
    parts = [part for found in tensors_in(data) for part in (found.unbind() if found.is_nested else [found])]
    for tensor, some in zip(parts, _on_host([_some_bytes(tensor) for tensor in parts]), strict=True):
        digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(some.numpy().tobytes())
    return digest.hexdigest()


def _some_bytes(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, len(flat) // 4096)].contiguous().view(torch.uint8)


def _on_host(parts: list[Tensor]) -> tuple[Tensor, ...]:
    """The same vectors in host memory. An accelerator is waited for once, and not for each of them."""
    if len({part.device for part in parts}) != 1 or parts[0].device.type == "cpu":
        return tuple(part.cpu() for part in parts)
    return torch.split(torch.cat(parts).cpu(), [len(part) for part in parts])
