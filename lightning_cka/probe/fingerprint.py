"""A hash of a batch's inputs, to check that a model gets the same inputs again."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from lightning_cka.probe.tensor_bytes import plain_parts, some_bytes
from lightning_cka.runtime.nested import tensors_in


def fingerprint(data: Any) -> str:
    """Hash the dtypes and shapes of a batch's tensors, and at least 4096 values of each, evenly spaced."""
    digest = hashlib.blake2b(digest_size=16)
    tensors = [part for found in tensors_in(data) for part in plain_parts(found)]
    for tensor, some in zip(tensors, _on_host([some_bytes(tensor) for tensor in tensors]), strict=True):
        digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(some.numpy().tobytes())
    return digest.hexdigest()


def _on_host(vectors: list[Tensor]) -> tuple[Tensor, ...]:
    """Copy vectors to host memory, with one wait for the accelerator instead of one for each vector."""
    if len({vector.device for vector in vectors}) != 1 or vectors[0].device.type == "cpu":
        return tuple(vector.cpu() for vector in vectors)
    return torch.split(torch.cat(vectors).cpu(), [len(vector) for vector in vectors])
