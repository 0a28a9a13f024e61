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
    parts = BlockFingerprint(0)
    parts.add(data, 0, 0)
    return parts.hexdigest()


class BlockFingerprint:
    """The fingerprint of a Gram block, whose inputs are added batch by batch.

    It is that of all inputs in one batch, if the batches can be joined along the first dimension of each tensor. So it
    does not depend on the size of the forward passes.

    Args:
        num_samples: Number of samples n in the block.
    """

    def __init__(self, num_samples: int) -> None:
        self._n = num_samples
        self._batches: list[list[tuple[str, bytes]]] = []
        self._can_join = True

    def add(self, data: Any, num_samples: int, start: int) -> None:
        """Add one batch.

        Args:
            data: The batch.
            num_samples: Number of its samples.
            start: Number of samples in earlier batches.
        """
        found = [self._part(part, num_samples, start) for each in tensors_in(data) for part in plain_parts(each)]
        values = [some.numpy().tobytes() for some in _on_host([some for _, some in found])]
        self._batches.append([(text, each) for (text, _), each in zip(found, values, strict=True)])

    def _part(self, tensor: Tensor, num_samples: int, start: int) -> tuple[str, Tensor]:
        """Return dtype and shape of a tensor of the block, and the bytes of some values of one batch."""
        if num_samples == self._n:
            return repr((tensor.dtype, tuple(tensor.shape))), some_bytes(tensor)
        if tensor.ndim == 0 or len(tensor) != num_samples:
            self._can_join = False
            return repr((tensor.dtype, tuple(tensor.shape))), some_bytes(tensor)
        return repr((tensor.dtype, (self._n, *tensor.shape[1:]))), some_bytes(tensor, start, self._n)

    def hexdigest(self) -> str:
        """Return the fingerprint of the batches that were added."""
        digest = hashlib.blake2b(digest_size=16)
        first, *others = [[text for text, _ in batch] for batch in self._batches]
        if self._can_join and all(other == first for other in others):
            for place, text in enumerate(first):
                digest.update(text.encode())
                for batch in self._batches:
                    digest.update(batch[place][1])
        else:
            for batch in self._batches:
                for text, values in batch:
                    digest.update(text.encode())
                    digest.update(values)
        return digest.hexdigest()


def _on_host(vectors: list[Tensor]) -> tuple[Tensor, ...]:
    """Copy vectors to host memory, with one wait for the accelerator instead of one for each vector."""
    if len({vector.device for vector in vectors}) != 1 or vectors[0].device.type == "cpu":
        return tuple(vector.cpu() for vector in vectors)
    return torch.split(torch.cat(vectors).cpu(), [len(vector) for vector in vectors])
