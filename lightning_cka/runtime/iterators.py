"""Copy Python's own iterators, so that a copy can be read in place of the original."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any, cast

from lightning_cka.runtime.attribute_tables import AttributeTable
from lightning_cka.runtime.left_alone import is_atom

_MODULES = ("builtins", "itertools")


class IteratorCopies:
    """Copies of iterators, which take their places in attributes and containers for the time being.

    Attributes:
        originals: The iterators that have a copy.
        not_copied: Names of iterators that have none.
    """

    def __init__(self) -> None:
        self.originals: list[Iterator[Any]] = []
        self.not_copied: list[str] = []
        self._copies: dict[int, Iterator[Any]] = {}
        self._generators: list[tuple[str, Callable[[], bool]]] = []

    def replace(self, table: AttributeTable, key: Any, name: str) -> None:
        """Put a copy in the place of an iterator. Each place of one iterator gets the same copy."""
        value = table.kept[key]
        copied = self._copies.get(id(value)) or copied_iterator(value)
        if copied is not None:
            self.originals.append(value)
            self._copies[id(value)] = self._copies[id(copied)] = copied
            table.put(key, copied)
        elif isinstance(value, GeneratorType):
            self._generators.append((name, watched_generator(value)))
        else:
            self.not_copied.append(f"the iterator {name}")

    def advanced(self) -> list[str]:
        """Return the names of the generators that were read: none can be copied or put back."""
        return [name for name, has_advanced in self._generators if has_advanced()]


def copied_iterator(value: Any) -> Iterator[Any] | None:
    """Return a copy at the same position; None if the value is no iterator of Python's own, or cannot be copied.

    What it iterates over is shared with the original.
    """
    if not is_python_iterator(value) or isinstance(value, GeneratorType):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and 3.13 warn, later ones cannot copy some.
        try:
            return cast(Iterator[Any], _copied(value))
        except Exception:  # noqa: BLE001  # It may iterate over anything.
            return None


def _copied(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_copied(entry) if is_python_iterator(entry) else entry for entry in value)
    make, arguments, *states = value.__reduce__()
    copied = make(*_copied(arguments))
    for state in filter(lambda state: state is not None, states):
        copied.__setstate__(_copied_state(state) if isinstance(state, tuple) else state)
    return copied


def _copied_state(state: tuple[Any, ...]) -> tuple[Any, ...]:
    # `cycle` appends to a list that is a part of its state.
    return tuple(_copied(tuple(list(part) if isinstance(part, list) else part for part in state)))


def is_python_iterator(value: Any) -> bool:
    """Whether a value is an iterator of `itertools`, or one that a built-in function or a generator makes."""
    return isinstance(value, Iterator) and type(value).__module__ in _MODULES


def watched_generator(generator: GeneratorType[Any, Any, Any]) -> Callable[[], bool]:
    """Return a function that tells whether a generator, which cannot be copied, has been read since now."""
    before = _position(generator)
    return lambda: _position(generator) != before


def _position(generator: GeneratorType[Any, Any, Any]) -> tuple[Any, ...]:
    frame = generator.gi_frame
    values = inspect.getgeneratorlocals(generator).items()
    local = tuple((name, value if is_atom(value) else id(value)) for name, value in values)
    return (None if frame is None else frame.f_lasti, local)
