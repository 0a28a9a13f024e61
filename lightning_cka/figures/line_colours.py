"""Colours of lines that have an order, such as layers by depth."""

from __future__ import annotations

from matplotlib import colormaps

from lightning_cka.runtime.spacing import spread_evenly

Colour = tuple[float, float, float, float]

_MAX_LINES = 8
"""Default maximum number of lines: the colours of more lines look alike."""


def chosen_lines(count: int) -> list[int]:
    """Return the indices of the lines that are drawn by default: all, or 8 evenly spaced ones if there are more."""
    return spread_evenly(range(count), _MAX_LINES)


def line_colours(count: int, *, on_dark: bool = False) -> list[Colour]:
    """Return colours in order.

    Args:
        count: Number of lines.
        on_dark: Whether the background is dark.
    """
    low, high = (0.25, 1.0) if on_dark else (0.0, 0.9)
    return [colormaps["viridis"](low + (high - low) * place / max(1, count - 1)) for place in range(count)]
