"""Check plain values that come from a file: their kinds, their ranges and the names of their fields.

A check is a function of a value and of its `Place` in the file. It returns the value without unknown fields, or raises
a `ValueError`. It looks only as deep as the format is, so that any value, however large or nested, can be checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from lightning_cka.runtime.text import one_line, shortened


@dataclass(frozen=True)
class Place:
    """Where a value is in a file.

    Attributes:
        parts: Names of the fields and indices that lead to the value.
        unknown: Names of unknown fields that were found anywhere in the file.
    """

    parts: tuple[object, ...] = ()
    unknown: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return one_line(".".join(str(part) for part in self.parts), 80) or "the content"

    def at(self, part: object) -> Place:
        """Return the place of a field or of an item."""
        return Place((*self.parts, part), self.unknown)

    def error(self, expected: str, value: object) -> ValueError:
        """Return the error that a value is not what the format says."""
        return ValueError(f"{self} must be {expected}, but is {_brief(value)}")


Check = Callable[[Any, Place], Any]


def text(value: Any, place: Place) -> str:
    """Check that a value is a string."""
    if not isinstance(value, str):
        raise place.error("a string", value)
    return value


def boolean(value: Any, place: Place) -> bool:
    """Check that a value is a bool."""
    if not isinstance(value, bool):
        raise place.error("true or false", value)
    return value


def whole(lowest: int = 0, highest: int = 2**63 - 1) -> Check:
    """Return a check for integers in a range."""

    def check(value: Any, place: Place) -> int:
        if not _is_whole(value, lowest, highest):
            raise place.error(f"an integer of at least {lowest}", value)
        return int(value)

    return check


def number(lowest: float = -inf, highest: float = inf) -> Check:
    """Return a check for numbers in a range. None and ``nan`` stand for an undefined number."""

    def check(value: Any, place: Place) -> float | None:
        if not is_number(value, lowest, highest):
            raise place.error(f"a number in [{lowest:g}, {highest:g}] or null", value)
        result: float | None = value
        return result

    return check


def optional(check: Check) -> Check:
    """Return a check for values that may be None."""
    return lambda value, place: None if value is None else check(value, place)


def whole_numbers(value: Any, place: Place) -> list[int]:
    """Check that a value is a list of integers of 64 bits."""
    items = _as_list(value, place)
    if not all(_is_whole(item, -(2**63), 2**63 - 1) for item in items):
        raise place.error("a list of integers", value)
    return items


def unique_texts(value: Any, place: Place) -> list[str]:
    """Check that a value is a list of distinct strings."""
    items = _as_list(value, place)
    if not all(isinstance(item, str) for item in items) or len(set(items)) < len(items):
        raise place.error("a list of distinct strings", value)
    return items


def list_of(check: Check) -> Check:
    """Return a check for lists."""
    return lambda value, place: [check(item, place.at(i)) for i, item in enumerate(_as_list(value, place))]


def map_of(check: Check) -> Check:
    """Return a check for dictionaries with any names."""

    def check_all(value: Any, place: Place) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise place.error("a dictionary with names", value)
        return {name: check(item, place.at(name)) for name, item in value.items()}

    return check_all


def row(**fields: Check) -> Check:
    """Return a check for lists of fixed fields. Further items, of a later version, are unknown fields."""

    def check(value: Any, place: Place) -> list[Any]:
        items = _as_list(value, place)
        if len(items) < len(fields):
            raise place.error(f"a list of {len(fields)} items", value)
        place.unknown.extend([f"{place}.{len(fields)}"] * (len(items) > len(fields)))
        return [fields[name](item, place.at(name)) for name, item in zip(fields, items, strict=False)]

    return check


def record(
    fields: Mapping[str, Check],
    defaults: Mapping[str, Any] | None = None,
    old_names: Mapping[str, str] | None = None,
) -> Check:
    """Return a check for dictionaries of known fields. Other fields, of a later version, are unknown fields.

    Args:
        fields: Checks by name of the field.
        defaults: Values of the fields that may be missing.
        old_names: Names of fields by their names in older versions.
    """
    defaults, old_names = defaults or {}, old_names or {}

    def check(value: Any, place: Place) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise place.error("a dictionary", value)
        found = {old_names.get(name, name) if isinstance(name, str) else None: item for name, item in value.items()}
        place.unknown.extend(sorted(str(place.at(name)) for name in found.keys() - fields.keys()))
        if missing := [name for name in fields if name not in found and name not in defaults]:
            raise ValueError(f"{place} has no {shortened(missing)}")
        return {
            name: each(found[name], place.at(name)) if name in found else defaults[name]
            for name, each in fields.items()
        }

    return check


def is_number(value: Any, lowest: float, highest: float) -> bool:
    """Whether a value is None, ``nan``, or a number in a range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value is None
    return value != value or lowest <= value <= highest  # Only nan is not equal to itself.


def _is_whole(value: Any, lowest: int, highest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def _as_list(value: Any, place: Place) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise place.error("a list", value)
    return list(value)


def _brief(value: object) -> str:
    """Return a short description of any value."""
    is_short = value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**70)
    if is_short or isinstance(value, str):
        return one_line(repr(value[:60] if isinstance(value, str) else value), 60)
    return f"of type {type(value).__name__}"
