"""Read an argument that takes one value or several, whatever container the several are in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from os import PathLike
from typing import Any


def listed(value: Any) -> tuple[Any, ...]:
    """Return the values of a container as a tuple, and a single value as a tuple of one.

    A container is whatever can be iterated, such as a list, a tuple, a set, ``dict.keys()``, a generator or a list of
    OmegaConf. Strings, paths, classes, functions and modules are single values, and so are mappings.

    The values of a set are sorted by their text: each process may iterate over a set in another order.
    """
    if isinstance(value, str | bytes | PathLike | type | Mapping) or callable(value):
        return (value,)
    try:
        values = tuple(value)
    except TypeError:
        return (value,)
    return tuple(sorted(values, key=_text)) if isinstance(value, Set) and not _has_order(value) else values


def _has_order(values: Iterable[Any]) -> bool:
    return hasattr(values, "__reversed__")  # As dict.keys() has, and set and frozenset have not.


def _text(value: Any) -> str:
    return str(getattr(value, "__qualname__", value))
