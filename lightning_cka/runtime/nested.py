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
    """By name, the fields of a dataclass that are set, slots included; none of anything else."""
    if not is_dataclass(data) or isinstance(data, type):
        return {}
    return {field.name: getattr(data, field.name) for field in fields(data) if hasattr(data, field.name)}


def map_tensors(data: Any, fn: Callable[[Tensor], Any]) -> Any:
    """Apply ``fn`` to the tensors of a batch, in mappings, sequences and dataclasses of any depth."""
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
            object.__setattr__(data, name, map_tensors(value, fn))  # Frozen ones, too.
    return data


def tensors_in(data: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Tensors and arrays of a batch: in mappings, sequences, and the attributes of other objects."""
    seen = set() if seen is None else seen
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, np.ndarray) and data.dtype.kind in "biuf":
        yield torch.from_numpy(data)
    elif id(data) not in seen and not isinstance(data, str | bytes | type):
        seen.add(id(data))
        if isinstance(data, Mapping):
            parts: Iterable[Any] = data.values()
        elif isinstance(data, list | tuple):
            parts = data
        else:
            parts = (getattr(data, "__dict__", {}) | dataclass_values(data)).values()
        for part in parts:
            yield from tensors_in(part, seen)
