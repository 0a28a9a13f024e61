"""Heatmaps side by side: how many of them, and where. All lengths are in inches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_cka.figures.flag_notes import notes_height, wrap_notes, write_at_bottom
from lightning_cka.figures.layout import SMALLEST_SIDE, figure_of, label_room, left_room, new_figure, side
from lightning_cka.figures.user_style import chosen_size, font_scale, room_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_PANEL = 2.8
"""Bound on a side of a heatmap that is one of several."""
_GAP = 0.15
"""Distance between a panel and the labels of the next one."""
_BAR, _BAR_LABELS = 0.3, 0.5
"""Widths of the free room at the right of panels, for the colour bar and for its labels."""
_TOP = 0.3
"""Height of the titles of panels."""
_TALLEST = 1.5
"""Default of ``tallest``: some more than a square."""


def new_grid(
    columns: Sequence[str],
    rows: Sequence[str],
    count: int,
    across: int,
    below: float,
    *,
    labels_once: bool = False,
    tallest: float = _TALLEST,
) -> list[Axes]:
    """Return axes of several panels in a new figure, with room for labels and a colour bar at the right.

    Args:
        columns: Labels of the x axis of the panel that needs most room for them.
        rows: Labels of the y axis of the panel that needs most room for them.
        count: Number of panels.
        across: Number of panels side by side; see `panels_across`.
        below: Height of the free room under all panels.
        labels_once: Whether only the panels at the left have labels of the y axis.
        tallest: Largest height of a cell, in widths of a cell, in a figure whose size the user chose.

    Returns:
        The axes from left to right, then from top to bottom.
    """
    lines = -(-count // across)
    total_width = grid_width(columns, rows, across, labels_once=labels_once)
    left, width = left_room(rows), _width(total_width, rows, across, labels_once)
    step_x = panel_distance(columns, rows, across, labels_once=labels_once)
    height, total_height = _panel_side(len(rows)), 0.0
    around = _height_around(columns, width)
    if (size := chosen_size()) is not None:
        most = tallest * width * max(1.0, len(rows) / len(columns))
        height = max(min((size[1] - below) / lines - around, most), SMALLEST_SIDE)
        total_height = size[1]
    step_y = height + around
    total_height = max(total_height, lines * step_y + below)
    figure = new_figure(total_width, total_height)
    return [
        figure.add_axes(
            (
                ((place % across) * step_x + left) / total_width,
                (below + (lines - place // across) * step_y - height - _TOP * room_scale()) / total_height,
                width / total_width,
                height / total_height,
            )
        )
        for place in range(count)
    ]


def noted_grid(
    columns: Sequence[str],
    rows: Sequence[str],
    count: int,
    across: int,
    notes: Sequence[str],
    reasons: Sequence[str],
    *,
    labels_once: bool = False,
    tallest: float = _TALLEST,
) -> list[Axes]:
    """Return `new_grid` with notes under all panels, and below them the reasons of flags."""
    width = grid_width(columns, rows, across, labels_once=labels_once)
    lines, flag_lines = wrap_notes(notes, width), wrap_notes(reasons, width)
    below = notes_height(flag_lines)
    height = below + notes_height(lines)
    grid = new_grid(columns, rows, count, across, height, labels_once=labels_once, tallest=tallest)
    write_at_bottom(figure_of(grid[0]), flag_lines)
    write_at_bottom(figure_of(grid[0]), lines, colour=None, height=below)
    return grid


def panels_across(
    columns: Sequence[str], rows: Sequence[str], count: int, most: int, *, labels_once: bool = False
) -> int:
    """Return how many panels are side by side.

    Few places stay empty. In a figure whose size the user chose, the panels are as large as possible.

    Args:
        columns: As in `new_grid`.
        rows: As in `new_grid`.
        count: Number of panels.
        most: Maximum number of panels side by side.
        labels_once: As in `new_grid`.
    """
    across = _filled(count, most)
    if (size := chosen_size()) is None:
        return across

    def smaller_side(number: int) -> tuple[bool, float]:
        width = _width(size[0], rows, number, labels_once)
        height = size[1] / -(-count // number) - _height_around(columns, width)
        return width >= SMALLEST_SIDE, min(width, height)

    return max(range(1, across + 1), key=smaller_side)


def grid_width(columns: Sequence[str], rows: Sequence[str], across: int, *, labels_once: bool = False) -> float:
    """Return the width of the figure that `new_grid` makes."""
    around = _width_around(rows, across, labels_once)
    if (size := chosen_size()) is not None:
        return max(size[0], across * SMALLEST_SIDE + around)
    return across * _panel_side(len(columns)) + around


def panel_distance(columns: Sequence[str], rows: Sequence[str], across: int, *, labels_once: bool = False) -> float:
    """Return the distance between the left edges of panels side by side."""
    width = _width(grid_width(columns, rows, across, labels_once=labels_once), rows, across, labels_once)
    return width + _GAP + (0 if labels_once else left_room(rows))


def _filled(count: int, most: int) -> int:
    """Return the number of panels side by side, at most ``most``, so that few places stay empty."""
    lines = -(-count // most)
    return -(-count // lines)


def _width(total: float, rows: Sequence[str], across: int, labels_once: bool) -> float:
    """Return the width of a panel."""
    return (total - _width_around(rows, across, labels_once)) / across


def _width_around(rows: Sequence[str], across: int, labels_once: bool) -> float:
    """Return the width of a grid without that of its panels."""
    return (1 if labels_once else across) * left_room(rows) + across * _GAP + _BAR + _BAR_LABELS * font_scale()


def _height_around(columns: Sequence[str], width: float) -> float:
    """Return the height of a line of panels without that of the panels."""
    return label_room(columns, width) + 0.1 + _TOP * room_scale()


def _panel_side(cells: int) -> float:
    """Return the length of an axis that is one of several."""
    return min(side(cells), _MAX_PANEL)
