"""Choose some of many items, evenly spaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def spread_evenly(items: Sequence[T], count: int) -> list[T]:
    """Return at most ``count`` of the items, evenly spaced, with the first and the last one if ``count`` is above 1."""
    if len(items) <= count:
        return list(items)
    return [items[round(place * (len(items) - 1) / max(1, count - 1))] for place in range(count)]
