"""A hash of each sample's inputs, to find copies in a probe set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_cka.runtime.nested import tensors_in

_MULTIPLIER = 0x5851F42D4C957F2D
"""Multiplier of a linear congruential generator of 64 bits (Knuth's MMIX)."""

_MAX_ENTRIES = 2**20
"""Number of entries that are read at a time, to bound the memory."""

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Dtypes by their size in bytes, as which the entries are read."""


class InputHashes:
    """Hashes of the samples of one batch. Samples with identical inputs have the same hash.

    Sums of integers do not depend on their order, so that all devices give the same hash. Only tensors with one entry
    per sample count.

    Args:
        data: What the model gets of the batch.
        num_samples: Number of samples n.
    """

    def __init__(self, data: Any, num_samples: int) -> None:
        # Values are read in `values`: the accelerator computes them while the CPU goes on.
        self._hashes = [found for tensor in tensors_in(data) if (found := _hashes(tensor, num_samples)) is not None]

    def values(self) -> tuple[int, ...]:
        """Return the hashes, in [-2^63, 2^63); empty if the batch has no tensor with one entry per sample."""
        if not self._hashes:
            return ()
        total = torch.zeros_like(self._hashes[0], device="cpu")
        for hashes in self._hashes:
            total = total * _MULTIPLIER + hashes.cpu()
        return tuple(total.tolist())


def _hashes(tensor: Tensor, n: int) -> Tensor | None:
    """Return one hash ``(n,)`` per sample; None if the tensor does not have one entry per sample."""
    if tensor.layout != torch.strided or tensor.is_nested or tensor.ndim == 0 or len(tensor) != n:
        return None
    try:
        flat = tensor.detach().reshape(n, -1)
        flat = torch.view_as_real(flat).flatten(1) if flat.is_complex() else flat
        flat = flat.to(torch.uint8) if flat.dtype == torch.bool else flat.contiguous()
        return _mixed(_weighted_sums(flat.view(_INTEGERS[flat.element_size()])))
    except (RuntimeError, TypeError, NotImplementedError, KeyError):
        return None  # A tensor subclass without these functions: its copies are not found.


def _weighted_sums(entries: Tensor) -> Tensor:
    """Return one sum ``(n,)`` per row of integers ``(n, d)``, a part of the columns at a time."""
    total = torch.zeros(len(entries), dtype=torch.int64, device=entries.device)
    start = 0
    for block in torch.split(entries, max(1, _MAX_ENTRIES // len(entries)), dim=1):
        weights = _weights(start, block.shape[1], entries.device)
        total += (block.to(torch.int64) * weights).sum(1)
        start += block.shape[1]
    return total


def _weights(start: int, count: int, device: torch.device) -> Tensor:
    """Return odd integers of 64 bits that depend on their place in a way that inputs do not."""
    places = torch.arange(start + 1, start + count + 1, device=device)
    return _mixed(places * _MULTIPLIER) | 1


def _mixed(values: Tensor) -> Tensor:
    """Return integers of 64 bits whose bits all depend on all bits of the values."""
    values = (values ^ (values >> 29)) * _MULTIPLIER
    values = (values ^ (values >> 32)) * _MULTIPLIER
    return values ^ (values >> 29)


def groups_of_copies(samples: Sequence[int], hashes: Sequence[int]) -> list[list[int]]:
    """Return the groups of two samples or more that have the same hash, the largest group first."""
    by_hash: dict[int, set[int]] = {}
    for sample, value in zip(samples, hashes, strict=True):
        by_hash.setdefault(value, set()).add(sample)
    groups = [sorted(group) for group in by_hash.values() if len(group) > 1]
    return sorted(groups, key=lambda group: (-len(group), group))


def hashes_of_groups(samples: Iterable[int], groups: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Return numbers that are equal for samples of the same group, and different for all others."""
    places = {sample: -place for place, group in enumerate(groups, start=1) for sample in group}
    return tuple(places.get(sample, place) for place, sample in enumerate(samples))
