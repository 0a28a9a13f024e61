"""Copy a sampler, so that reading the copy leaves the user's sampler as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

_STATELESS = (range, list, tuple, np.ndarray, Tensor, str)
_MAX_DEPTH = 4
_MAX_ITEMS = 1000


def isolated_copy(sampler: Any, dataset: Any) -> Any:
    """Copy a sampler with its state and its random generators, but share the data that it reads.

    Sequences of indices are returned as they are, since reading them changes nothing.

    Raises:
        ValueError: It cannot be copied.
    """
    if isinstance(sampler, _STATELESS):
        return sampler
    memo: dict[int, Any] = {id(part): part for part in [dataset, *_data_sources(sampler)]}
    memo |= {id(generator): _copied_generator(generator) for generator in generators_of(sampler)}
    try:
        return copy.deepcopy(sampler, memo)
    except Exception:  # noqa: BLE001  # A lock, an open file, or anything that user code raises.
        return _copied_by_attributes(sampler, memo)


def _copied_by_attributes(sampler: Any, memo: dict[int, Any]) -> Any:
    """Copy the attributes that can be copied, and share the others."""
    values = dict(getattr(sampler, "__dict__", {}))
    for name, value in values.items():
        try:
            values[name] = copy.deepcopy(value, memo)
        except Exception as error:
            if isinstance(value, Iterator):
                raise _not_copied(sampler) from error
    if isinstance(sampler, Iterator):
        raise _not_copied(sampler)
    copied = copy.copy(sampler)
    copied.__dict__.update(values)
    return copied


def _not_copied(sampler: Any) -> ValueError:
    return ValueError(
        f"the sampler of the validation loader ({type(sampler).__name__}) can be read only once, so that its samples "
        "cannot be found out without taking them from validation; pass a sampler that can be read again, or your own "
        "dataloader="
    )


def _copied_generator(generator: torch.Generator) -> torch.Generator:
    copied = torch.Generator(generator.device)
    copied.set_state(generator.get_state())
    return copied


def generators_of(sampler: Any) -> list[torch.Generator]:
    """Return the random generators that a sampler, or one inside it, owns."""
    return [part for part in _parts(sampler) if isinstance(part, torch.Generator)]


def _data_sources(sampler: Any) -> list[Any]:
    return [part for part in _parts(sampler) if _is_data_source(part)]


def _is_data_source(value: Any) -> bool:
    """Whether a value is data, and not state of the sampler: a dataset, or any other object that can be indexed."""
    if isinstance(value, Dataset):
        return True
    is_builtin = isinstance(value, (*_STATELESS, dict, bytes, bytearray)) or type(value).__module__ in (
        "builtins",
        "collections",
    )
    return not is_builtin and hasattr(type(value), "__getitem__") and hasattr(type(value), "__len__")


def _parts(owner: Any, depth: int = 0) -> Iterator[Any]:
    """Yield what a sampler's attributes hold, with those of the samplers in it."""
    if depth > _MAX_DEPTH:
        return
    for value in _values(owner):
        yield value
        if not _is_data_source(value) or isinstance(value, Sampler):
            yield from _parts(value, depth + 1)


def _values(owner: Any) -> Iterable[Any]:
    if isinstance(owner, list | tuple):
        return owner[:_MAX_ITEMS]
    if isinstance(owner, dict):
        return list(owner.values())[:_MAX_ITEMS]
    return getattr(owner, "__dict__", {}).values()
