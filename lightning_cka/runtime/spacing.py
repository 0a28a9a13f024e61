"""Choose some of many items, evenly spaced, and divide items into even parts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")


def spread_evenly(items: Sequence[T], count: int) -> list[T]:
    """Return at most ``count`` of the items, evenly spaced, with the first and the last one if ``count`` is above 1."""
    if len(items) <= count:
        return list(items)
    return [items[round(place * (len(items) - 1) / max(1, count - 1))] for place in range(count)]


def even_parts(count: int, most: int) -> list[slice]:
    """Return slices of consecutive items, of about the same size: at most ``most`` items each, but at least 1."""
    parts = -(-count // max(1, most))
    ends = [count * part // parts for part in range(parts + 1)] if parts else [0]
    return [slice(*pair) for pair in pairwise(ends)]
