"""Markers that do not hide each other."""

from __future__ import annotations

_SMALLEST = 1.2
"""Smallest marker in points that can be seen in print."""


def marker_size(length: float, count: int, largest: float, *, always: bool = False) -> float:
    """Return the size in points of markers that are side by side.

    Args:
        length: Length in inches over which they are spread.
        count: Number of markers.
        largest: Size where there is room for it.
        always: Whether markers are drawn even if they touch. Otherwise, the size is 0 where they would be too small.
    """
    size = min(largest, 0.8 * 72 * length / max(1, count))
    return size if size >= _SMALLEST else _SMALLEST * always
