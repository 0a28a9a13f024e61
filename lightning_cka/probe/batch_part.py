"""Cut some consecutive samples out of a batch, whatever it is made of."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from lightning_cka.probe.probe_set import ProbeBatch
from lightning_cka.probe.sample_places import is_plain, own_size
from lightning_cka.runtime.nested import dataclass_values

_FEW = 8


def some_samples(num_samples: int) -> range:
    """Return which samples to show again: half of a batch, but at most 8, without the first.

    A layer that sorts n samples leaves such a part where it was in one of C(n, n / 2) cases. The part is not symmetric
    in the batch, so that a layer that reverses its samples is seen too.
    """
    return range(1, num_samples if num_samples < 6 else 1 + min(_FEW, num_samples // 2))


def part_of_batch(batch: ProbeBatch, samples: range) -> ProbeBatch | None:
    """Copy some consecutive samples of a batch.

    Returns:
        The smaller batch; None if nothing in the batch has one entry per sample.
    """
    try:
        data = select_samples(batch.data, batch.num_samples, samples)
    except ValueError:
        return None
    numbers = tuple(batch.samples[i] for i in samples)
    return replace(batch, data=data, num_samples=len(numbers), samples=numbers)


def without_last_sample(data: Any, n: int) -> Any:
    """Return `select_samples` of all samples but the last."""
    return select_samples(data, n, range(n - 1))


def select_samples(data: Any, n: int, samples: range) -> Any:
    """Return a copy of a batch in which each tensor, array, list and tuple of n entries has some of them.

    Args:
        data: The batch of n samples.
        n: Number of samples.
        samples: The samples to keep, with step 1.

    Raises:
        ValueError: Nothing in the batch has n entries.
    """
    selected: list[None] = []
    part = _select(data, n, slice(samples.start, samples.stop), selected)
    if not selected:
        raise ValueError(f"no tensor of the {type(data).__name__} has one entry for each of the {n} samples")
    return part


def _select(data: Any, n: int, samples: slice, selected: list[None]) -> Any:
    """Select samples wherever there are n entries; ``selected`` gets an entry each time."""
    if isinstance(data, Tensor | np.ndarray | PackedSequence) or (own_size(data) == n and is_plain(data)):
        if own_size(data) != n:
            return data
        selected.append(None)
        return _entries(data, samples)
    if isinstance(data, Mapping):
        return {key: _select(value, n, samples, selected) for key, value in data.items()}
    if isinstance(data, list | tuple):
        values = [_select(value, n, samples, selected) for value in data]
        return type(data)(*values) if hasattr(data, "_fields") else type(data)(values)
    if found := dataclass_values(data):
        data = copy.copy(data)
        for name, value in found.items():
            # setattr would fail on a frozen dataclass.
            object.__setattr__(data, name, _select(value, n, samples, selected))
    return data


def _entries(data: Any, samples: slice) -> Any:
    if isinstance(data, PackedSequence):
        return pack_sequence(unpack_sequence(data)[samples], enforce_sorted=False)
    if not isinstance(data, Tensor):
        return copy.deepcopy(data[samples])
    if data.is_nested:
        return torch.nested.as_nested_tensor([part.clone() for part in data.unbind()[samples]], layout=data.layout)
    if data.layout is not torch.strided:
        dense = data.to_dense()[samples]
        return dense.to_sparse(layout=data.layout)
    return data[samples].clone()  # The model may write to its inputs.
