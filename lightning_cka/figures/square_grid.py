"""Square axes side by side, as for maps of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_cka.figures.layout import SMALLEST_SIDE, new_figure
from lightning_cka.figures.user_style import chosen_size, font_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def square_grid(
    count: int, across: int, *, side: float, above: float, below: float, right: float, shared: bool = False
) -> list[Axes]:
    """Return square axes with numbers as tick labels in a new figure.

    Args:
        count: Number of panels.
        across: Maximum number of panels side by side.
        side: Length of a side of a panel. If the user chose the size of the figure, panels fill it instead.
        above: Height of the free room above all panels.
        below: Height of the free room under all panels.
        right: Width of the free room at the right.
        shared: Whether only the panels at the left and at the bottom have tick labels, so that panels can be closer.

    Returns:
        The axes from left to right, then from top to bottom.
    """
    across = min(count, across)
    lines = -(-count // across)
    left, bottom, top = (length * max(1.0, font_scale()) for length in (0.6, 0.45, 0.3))
    gap_x, gap_y = (0.2, 0.1 + top) if shared else (left + 0.05, bottom + top)
    width = left + (across - 1) * gap_x + 0.05 + right  # Without the panels.
    height = top + (lines - 1) * gap_y + bottom + above + below
    if (size := chosen_size()) is not None:
        side = max(min((size[0] - width) / across, (size[1] - height) / lines), SMALLEST_SIDE)
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
