"""Square axes side by side, as for maps of samples."""

from __future__ import annotations

from collections.abc import Sequence
from math import isclose
from typing import TYPE_CHECKING

from lightning_cka.figures.layout import SMALLEST_SIDE, figure_of, new_figure
from lightning_cka.figures.user_style import chosen_size, room_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BOTTOM = 0.45
"""Height in inches of tick labels and a title below axes."""


def square_grid(
    count: int, across: int, *, side: float, above: float, below: float, right: float, shared: bool = False
) -> list[Axes]:
    """Return square axes with numbers as tick labels in a new figure.

    Args:
        count: Number of panels.
        across: Maximum number of panels side by side. If the user chose the size of the figure, there may be fewer, so
            that they fit; see `side_by_side`.
        side: Length of a side of a panel. If the user chose the size of the figure, panels fill it instead.
        above: Height of the free room above all panels.
        below: Height of the free room under all panels.
        right: Width of the free room at the right.
        shared: Whether only the panels at the left and at the bottom have tick labels, so that panels can be closer.

    Returns:
        The axes from left to right, then from top to bottom.
    """
    across = min(count, across)
    left, bottom, top = (length * room_scale() for length in (0.6, _BOTTOM, 0.3))
    gap_x, gap_y = (0.2, 0.1 + top) if shared else (left + 0.05, bottom + top)

    def around(number: int) -> tuple[float, float]:
        """Return width and height of the grid without its panels, for this number of panels side by side."""
        lines = -(-count // number)
        return left + (number - 1) * gap_x + 0.05 + right, top + (lines - 1) * gap_y + bottom + above + below

    if (size := chosen_size()) is not None:
        widest = {number: (size[0] - around(number)[0]) / number for number in range(1, across + 1)}
        sides = {
            number: max(min(width, (size[1] - around(number)[1]) / -(-count // number)), SMALLEST_SIDE)
            for number, width in widest.items()
            if width >= SMALLEST_SIDE or number == 1
        }
        across = max(sides, key=lambda number: (sides[number], number))
        side = sides[across]
    lines = -(-count // across)
    width, height = around(across)
    step_x, step_y = side + gap_x, side + gap_y
    width, height = width + across * side, height + lines * side
    if size is not None:
        width, height = max(size[0], width), max(size[1], height)
    figure = new_figure(width, height)
    return [
        figure.add_axes(
            (
                ((place % across) * step_x + left) / width,
                1 - (above + top + (place // across) * step_y + side) / height,
                side / width,
                side / height,
            )
        )
        for place in range(count)
    ]


def room_below(grid: Sequence[Axes]) -> float:
    """Return the height in inches of the free room under the labels of the lowest axes of a grid."""
    lowest = min(float(ax.get_position(original=True).y0) for ax in grid)
    return lowest * float(figure_of(grid[0]).get_figheight()) - _BOTTOM * room_scale()


def side_by_side(grid: Sequence[Axes]) -> int:
    """Return how many axes of a grid are in its first line."""
    heights = [float(ax.get_position(original=True).y0) for ax in grid]
    return sum(isclose(height, heights[0]) for height in heights)
