"""`even_parts`: divide layers into parts that are computed at a time."""

from __future__ import annotations

from itertools import pairwise


def even_parts(count: int, most: int) -> list[slice]:
    """Return slices of consecutive items, of about the same size: at most ``most`` items each, but at least 1."""
    parts = -(-count // max(1, most))
    ends = [count * part // parts for part in range(parts + 1)] if parts else [0]
    return [slice(*pair) for pair in pairwise(ends)]
