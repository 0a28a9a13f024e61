"""`BlockFeatures`: the features of one Gram block, collected over its forward passes."""

from __future__ import annotations

import torch
from torch import Tensor


class BlockFeatures:
    """Joins each layer's features over the forward passes of a Gram block.

    Nothing is kept if one forward pass is the whole block. Otherwise, a layer's features are copied to memory for the
    whole block, which is used again for the next one.

    Args:
        memory: Memory of the layers' features, by row. The next block of the same memory overwrites it.
        num_samples: Number of samples n in the block.
    """

    def __init__(self, memory: dict[int, Tensor], num_samples: int) -> None:
        self._memory = memory
        self._n = num_samples
        self._counts: dict[int, int] = {}

    def add(self, row: int, features: Tensor, start: int) -> Tensor | str | None:
        """Add the features of one forward pass.

        Args:
            row: Index of the layer.
            features: Its features, ``(m, ...)``. They are copied, since the model may write to them.
            start: Number of samples in the block's earlier forward passes.

        Returns:
            The layer's features ``(n, ...)`` if they are complete; None if samples are missing; or why they cannot be
            joined, as a verb phrase.
        """
        if len(features) == self._n:
            return features
        memory = self._memory.get(row)
        if start == 0 and (memory is None or len(memory) < self._n or not is_alike(memory, features)):
            memory = self._memory[row] = _empty_like(features, self._n)
        if memory is None:
            return None  # The first forward pass gave no features.
        if not is_alike(memory, features):
            return unequal_message(memory, features)
        memory[start : start + len(features)].copy_(features.detach())
        self._counts[row] = self._counts.get(row, 0) + len(features)
        return memory[: self._n] if self._counts[row] == self._n else None


def is_alike(one: Tensor, other: Tensor) -> bool:
    """Whether features ``(n, ...)`` and ``(m, ...)`` can be joined along their first dimension."""
    return (one.shape[1:], one.dtype, one.device) == (other.shape[1:], other.dtype, other.device)


def unequal_message(one: Tensor, other: Tensor) -> str:
    """Return why features of two forward passes cannot be joined, as a verb phrase.

    Args:
        one: Features ``(n, ...)`` of a forward pass.
        other: Features of a later one.
    """
    first, second = (f"{tuple(each.shape[1:])} {str(each.dtype).removeprefix('torch.')}" for each in (one, other))
    return (
        f"gave features of shape {first} and {second} for each sample in two forward passes, which cannot be joined to "
        "one Gram matrix: pass feature_fn='mean', or a gram_batch_size= of one forward pass"
    )


def _empty_like(features: Tensor, n: int) -> Tensor:
    """Return memory for the features of n samples, with the same order of dimensions in memory, for a fast copy."""
    order = sorted(range(1, features.ndim), key=features.stride, reverse=True)
    empty = torch.empty([n, *(features.shape[dim] for dim in order)], dtype=features.dtype, device=features.device)
    return empty.permute([0, *(1 + order.index(dim) for dim in range(1, features.ndim))])
