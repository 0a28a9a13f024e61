"""How long the titles of axes in a new figure may be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from lightning_cka.figures.layout import figure_of
from lightning_cka.figures.user_style import font_scale, text_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHARACTER = 0.096
"""Width in inches of a capital letter of a title."""
_TO_BAR = 0.12
"""Distance in inches between axes and a colour bar."""
_LONGEST = 72
"""Longer titles are hard to read."""
_SHORTEST = 12
"""Shorter ones say too little."""


def title_lengths(grid: Sequence[Axes]) -> tuple[int, int]:
    """Return how many characters fit into titles above or below axes, and beside them.

    Titles are centered on their axes. They may be longer than these, up to the edges of the figure, to the titles of
    other axes of the grid, and to a colour bar beside several lines of axes.

    Args:
        grid: All axes of a figure, of one size.
    """
    figure = figure_of(grid[0])
    boxes = [ax.get_position() for ax in grid]
    right = 1.0 if boxes[0].y0 == boxes[-1].y0 else max(box.x1 for box in boxes) + _TO_BAR / figure.get_figwidth()
    wide = _room([(box.x0 + box.x1) / 2 for box in boxes], right) * figure.get_figwidth()
    high = _room([(box.y0 + box.y1) / 2 for box in boxes]) * figure.get_figheight()
    return characters(wide), characters(high)


def characters(length: float) -> int:
    """Return how many characters of a title fit into this length in inches."""
    scale = max(font_scale(), text_scale("title"))
    return min(_LONGEST, max(_SHORTEST, int(length / (_CHARACTER * scale)) - 1))


def _room(centers: Sequence[float], end: float = 1.0) -> float:
    """Return the largest length of texts around these places between 0 and ``end``, which do not overlap."""
    places = sorted(set(centers))
    gaps = [high - low for low, high in pairwise(places)]
    return min([2 * places[0], 2 * (end - places[-1]), *(gap for gap in gaps if gap > 1e-6)])
