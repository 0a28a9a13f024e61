"""Where in a batch its samples lie: which tensor, array or list has one entry for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

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
        size = own_size(data) if not isinstance(data, int) else data
        return candidate_places(data)[0].size if size is None else size


def candidate_places(data: Any, least: int = MIN_SAMPLES) -> list[SamplePlaces]:
    """Return the places in a batch that may have one entry per sample, the most likely first, one for each size.

    A size is likely if many places have it. Sizes below ``least`` are left out if others remain.

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
    return [place for place in first if place.size >= least] or first


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


def own_size(value: Any) -> int | None:
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
    size = own_size(data)
    is_list = isinstance(data, list | tuple) and not isinstance(data, PackedSequence)
    if size is not None and not (is_list and hasattr(data, "_fields")):
        yield SamplePlaces(path, size, is_list)
    if size is None or is_list:
        inner = _places_inside(data, path, seen)
        yield from _one_of_each_size(inner) if is_list and _is_uniform(data) else inner


def _places_inside(data: Any, path: tuple[Any, ...], seen: set[int]) -> Iterator[SamplePlaces]:
    for step, value in _children(data):
        yield from _places(value, (*path, step), seen)


def is_plain(values: list[Any] | tuple[Any, ...]) -> bool:
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
