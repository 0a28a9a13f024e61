"""Where in a batch its samples lie: which tensor, array or list has one entry for each."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.runtime.nested import dataclass_values

_BATCH_SIZE = ("batch_size",)
_MAX_DEPTH = 16


@dataclass(frozen=True)
class SamplePlaces:
    """A place in a batch that has one entry per sample.

    Attributes:
        path: Keys, indices and names of attributes that lead to it from the batch.
        size: Number of entries in the batch where it was found.
        is_list: Whether it is a list or tuple, and not a tensor or array.
    """

    path: tuple[Any, ...]
    size: int
    is_list: bool = False

    def num_samples(self, data: Any) -> int:
        """Return the number of samples in a batch of the same structure.

        Raises:
            ValueError: The batch has no such place, and no other one.
        """
        for step in self.path:
            try:
                data_at = _step(data, step)
            except (KeyError, IndexError, TypeError, AttributeError):
                return candidate_places(data)[0].size
            data = data_at
        size = _own_size(data) if not isinstance(data, int) else data
        return candidate_places(data)[0].size if size is None else size


def candidate_places(data: Any) -> list[SamplePlaces]:
    """Return the places in a batch that may have one entry per sample, the most likely first, one for each size.

    A size is likely if many places have it. Sizes that are too small for CKA are left out if others remain.

    Raises:
        ValueError: There is none.
    """
    size = _given_batch_size(data)
    if size is not None:
        return [SamplePlaces(_BATCH_SIZE, size)]
    found = list(_places(data, (), set()))
    if not found:
        raise ValueError(f"cannot determine the batch size of a {type(data).__name__} without tensors")
    votes: dict[int, list[SamplePlaces]] = {}
    for place in found:
        votes.setdefault(place.size, []).append(place)
    ordered = sorted(votes.values(), key=lambda places: (-len(places), places[0].is_list))
    first = [places[0] for places in ordered]
    return [place for place in first if place.size >= MIN_SAMPLES] or first


def without_last_sample(data: Any, n: int) -> Any:
    """Return a copy of a batch in which each tensor, array, list and tuple of n entries has lost its last one.

    Raises:
        ValueError: The batch has none.
    """
    dropped: list[None] = []
    cut = _cut(data, n, dropped)
    if not dropped:
        raise ValueError(f"no tensor of the {type(data).__name__} has one entry for each of the {n} samples")
    return cut


def _given_batch_size(data: Any) -> int | None:
    """Return the attribute ``batch_size``. Batches of graphs have one, and tensors with one entry per node."""
    size = getattr(data, "batch_size", None)
    if isinstance(size, torch.Size) and len(size):
        size = size[0]
    return size if isinstance(size, int) and not isinstance(size, bool) else None


def _step(data: Any, step: Any) -> Any:
    if step == _BATCH_SIZE[0] and (size := _given_batch_size(data)) is not None:
        return size
    if isinstance(data, Mapping | list | tuple):
        return data[step]
    return (getattr(data, "__dict__", {}) | dataclass_values(data))[step]


def _own_size(value: Any) -> int | None:
    """Return the number of entries of a tensor, array, list or tuple; None for other values."""
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0])
    if isinstance(value, Tensor | np.ndarray):
        return (value.size(0) if isinstance(value, Tensor) else len(value)) if value.ndim else None
    return len(value) if isinstance(value, list | tuple) else None


def _places(data: Any, path: tuple[Any, ...], seen: set[int]) -> Iterator[SamplePlaces]:
    if isinstance(data, str | bytes | type) or id(data) in seen or len(path) > _MAX_DEPTH:
        return
    seen.add(id(data))
    size = _own_size(data)
    is_list = isinstance(data, list | tuple) and not isinstance(data, PackedSequence)
    if size is not None and not is_list:
        yield SamplePlaces(path, size)
        return
    if size is not None and not hasattr(data, "_fields"):
        yield SamplePlaces(path, size, is_list=True)
    inner = (place for step, value in _children(data) for place in _places(value, (*path, step), seen))
    yield from _one_of_each_size(inner) if is_list and _is_uniform(data) else inner


def _is_plain(values: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list or tuple of this length may hold samples. The fields of a named tuple are no samples."""
    return len(values) >= MIN_SAMPLES and not hasattr(values, "_fields")


def _children(data: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(data, Mapping):
        return data.items()
    if isinstance(data, list | tuple):
        return enumerate(data)
    return (getattr(data, "__dict__", {}) | dataclass_values(data)).items()


def _is_uniform(values: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list may have one entry for each sample. What its entries contain then counts once."""
    return len(values) >= MIN_SAMPLES and len({type(value) for value in values}) == 1


def _one_of_each_size(places: Iterable[SamplePlaces]) -> Iterator[SamplePlaces]:
    first: dict[int, SamplePlaces] = {}
    for place in places:
        first.setdefault(place.size, place)
    return iter(first.values())


def _cut(data: Any, n: int, dropped: list[None]) -> Any:
    """Drop the last of n entries, wherever there are n; ``dropped`` gets an entry each time."""
    if isinstance(data, Tensor | np.ndarray | PackedSequence) or (_own_size(data) == n and _is_plain(data)):
        if _own_size(data) != n:
            return data
        dropped.append(None)
        return _without_last_entry(data)
    if isinstance(data, Mapping):
        return {key: _cut(value, n, dropped) for key, value in data.items()}
    if isinstance(data, list | tuple):
        values = [_cut(value, n, dropped) for value in data]
        return type(data)(*values) if hasattr(data, "_fields") else type(data)(values)
    if found := dataclass_values(data):
        data = copy.copy(data)
        for name, value in found.items():
            object.__setattr__(data, name, _cut(value, n, dropped))  # setattr would fail on a frozen dataclass.
    return data


def _without_last_entry(data: Any) -> Any:
    if isinstance(data, PackedSequence):
        return pack_sequence(unpack_sequence(data)[:-1], enforce_sorted=False)
    if not isinstance(data, Tensor):
        return data[:-1]
    if data.is_nested:
        return torch.nested.as_nested_tensor(list(data.unbind()[:-1]), layout=data.layout)
    if data.layout is not torch.strided:
        dense = data.to_dense()[:-1]
        return dense.to_sparse(layout=data.layout)
    return data[:-1]
