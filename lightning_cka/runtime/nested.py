"""Find and map the tensors in nested batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def dataclass_values(data: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that are set, by name; an empty dictionary for any other value."""
    if not is_dataclass(data) or isinstance(data, type):
        return {}
    return {field.name: getattr(data, field.name) for field in fields(data) if hasattr(data, field.name)}


def map_tensors(data: Any, fn: Callable[[Tensor], Any]) -> Any:
    """Return a copy of a batch with ``fn`` applied to its tensors.

    Args:
        data: Batch of tensors in mappings, sequences and dataclasses of any depth. Other values are kept.
        fn: Function of one tensor.
    """
    if isinstance(data, Tensor):
        return fn(data)
    if isinstance(data, Mapping):
        return {key: map_tensors(value, fn) for key, value in data.items()}
    if isinstance(data, list | tuple):
        values = [map_tensors(value, fn) for value in data]
        return type(data)(*values) if hasattr(data, "_fields") else type(data)(values)
    if found := dataclass_values(data):
        data = copy.copy(data)
        for name, value in found.items():
            object.__setattr__(data, name, map_tensors(value, fn))  # setattr would fail on a frozen dataclass.
    return data


def tensors_in(data: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Yield the tensors of a batch, and its numeric NumPy arrays as tensors.

    Args:
        data: Batch of mappings, sequences and other objects. Of other objects, the attributes are searched.
        seen: Ids of objects that are visited already, which makes circular references harmless.
    """
    seen = set() if seen is None else seen
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, np.ndarray) and data.dtype.kind in "biuf" and data.dtype.itemsize <= 8:
        # torch takes only arrays in native byte order, without negative strides, and warns of read-only ones.
        yield torch.from_numpy(np.array(data, dtype=data.dtype.newbyteorder("="), order="C"))
    elif id(data) not in seen and not isinstance(data, str | bytes | type):
        seen.add(id(data))
        for part in _parts(data):
            yield from tensors_in(part, seen)


def _parts(data: Any) -> Iterable[Any]:
    """Return the values of a mapping, the items of a sequence, or the attributes of another object."""
    if isinstance(data, Mapping):
        return data.values()
    if isinstance(data, list | tuple):
        return data
    return (getattr(data, "__dict__", {}) | dataclass_values(data)).values()
