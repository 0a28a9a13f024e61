"""Sizes of figures and positions of axes, so that all labels fit. All lengths are in inches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_TICKS = 40
"""Default maximum number of ticks of an axis."""

_DPI = 120
_CELL = 0.3
_MIN_SIDE, _MAX_SIDE = 2.4, 9.0
"""Bounds on a side of a heatmap."""
_MAX_PANEL = 3.6
"""Bound on a side of a heatmap that is one of several."""
_CHARACTER = 0.065
"""Mean width of a character of a tick label."""
_LEGEND_CHARACTER = 0.06
"""Mean width of a character of a legend."""


def figure_of(ax: Axes) -> Figure:
    """Return the figure that contains the axes, directly or in a subfigure."""
    figure = ax.figure
    while not isinstance(figure, Figure):
        figure = figure.figure
    return figure


def new_axes(
    columns: Sequence[str], rows: Sequence[str], below: float = 0.0, legend: Sequence[str] = (), above: float = 0.0
) -> Axes:
    """Return axes in a new figure, with room for the labels and a colour bar.

    Cells are square, unless the bounds on the size of the axes forbid it.

    Args:
        columns: Labels of the x axis.
        rows: Labels of the y axis.
        below: Height of the free room under the title of the x axis.
        legend: Labels of the lines in a legend to the right of the axes.
        above: Height of the free room above the axes, beside that of the title.
    """
    left, bottom, top = _left_room(rows), label_room(columns) + below, 0.4 + above
    width, height = _side(len(columns)), _side(len(rows))
    total_width, total_height = figure_width(columns, rows, legend), bottom + height + top
    figure = _new_figure(total_width, total_height)
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def figure_width(columns: Sequence[str], rows: Sequence[str], legend: Sequence[str] = ()) -> float:
    """Return the width of the figure that `new_axes` makes."""
    right = max(0.95, 0.45 + _LEGEND_CHARACTER * max(map(len, legend), default=0))
    return _left_room(rows) + _side(len(columns)) + right


def axes_below(ax: Axes, height: float, gap: float) -> Axes:
    """Make the figure taller, and return new axes below ``ax`` with the same width.

    Args:
        ax: Axes in a figure without a layout engine. Their size and their distance from the top stay the same.
        height: Height of the new axes.
        gap: Distance between the two axes.
    """
    figure = figure_of(ax)
    width, old = figure.get_size_inches()
    box = ax.get_position()
    new = old + height + gap
    figure.set_size_inches(width, new)
    lowest = box.y0 * old
    ax.set_position((box.x0, (lowest + height + gap) / new, box.width, box.height * old / new))
    return figure.add_axes((box.x0, lowest / new, box.width, height / new))


def new_grid(columns: Sequence[str], rows: Sequence[str], count: int, across: int, below: float) -> list[Axes]:
    """Return axes of several panels in a new figure, with room for labels and a colour bar at the right.

    Args:
        columns: Labels of the x axis of the panel that needs most room for them.
        rows: Labels of the y axis of the panel that needs most room for them.
        count: Number of panels.
        across: Maximum number of panels side by side.
        below: Height of the free room under all panels.

    Returns:
        The axes from left to right, then from top to bottom.
    """
    left, bottom, top = _left_room(rows), label_room(columns) + 0.1, 0.3
    width, height = _panel_side(len(columns)), _panel_side(len(rows))
    across = min(count, across)
    lines = -(-count // across)
    step_x, step_y = _panel_step(columns, rows), bottom + height + top
    total_width, total_height = grid_width(columns, rows, count, across), lines * step_y + below
    figure = _new_figure(total_width, total_height)
    return [
        figure.add_axes(
            (
                ((place % across) * step_x + left) / total_width,
                (below + (lines - 1 - place // across) * step_y + bottom) / total_height,
                width / total_width,
                height / total_height,
            )
        )
        for place in range(count)
    ]


def grid_width(columns: Sequence[str], rows: Sequence[str], count: int, across: int) -> float:
    """Return the width of the figure that `new_grid` makes."""
    return min(count, across) * _panel_step(columns, rows) + 0.8


def square_grid(
    count: int, across: int, *, side: float, above: float, below: float, right: float, shared: bool = False
) -> list[Axes]:
    """Return square axes with numbers as tick labels in a new figure.

    Args:
        count: Number of panels.
        across: Maximum number of panels side by side.
        side: Length of a side of a panel.
        above: Height of the free room above all panels.
        below: Height of the free room under all panels.
        right: Width of the free room at the right.
        shared: Whether only the panels at the left and at the bottom have tick labels, so that panels can be closer.

    Returns:
        The axes from left to right, then from top to bottom.
    """
    across = min(count, across)
    lines = -(-count // across)
    left, bottom, top = 0.6, 0.45, 0.3
    step_x = side + (0.2 if shared else left + 0.05)
    step_y = side + (0.4 if shared else bottom + top)
    width = left + (across - 1) * step_x + side + 0.05 + right
    height = top + (lines - 1) * step_y + side + bottom + above + below
    figure = _new_figure(width, height)
    return [
        figure.add_axes(
            (
                ((place % across) * step_x + left) / width,
                (below + (lines - 1 - place // across) * step_y + bottom) / height,
                side / width,
                side / height,
            )
        )
        for place in range(count)
    ]


def label_room(columns: Sequence[str]) -> float:
    """Return the height that the labels and the title of the x axis need."""
    return 0.45 + (_CHARACTER * max(map(len, columns)) if labels_overlap(columns) else 0.15)


def labels_overlap(labels: Sequence[str]) -> bool:
    """Whether horizontal labels along the x axis would overlap, so that they must be rotated."""
    return min(len(labels), MAX_TICKS) * (max(map(len, labels)) + 1) * _CHARACTER > _side(len(labels))


def _left_room(rows: Sequence[str]) -> float:
    """Return the width that the labels and the title of the y axis need."""
    return 0.5 + _CHARACTER * max(map(len, rows))


def _side(cells: int) -> float:
    """Return the length of an axis with this number of cells."""
    return min(max(_CELL * cells, _MIN_SIDE), _MAX_SIDE)


def _panel_side(cells: int) -> float:
    """Return the length of an axis that is one of several."""
    return min(_side(cells), _MAX_PANEL)


def _panel_step(columns: Sequence[str], rows: Sequence[str]) -> float:
    """Return the distance between panels side by side, from left edge to left edge."""
    return _left_room(rows) + _panel_side(len(columns)) + 0.15


def _new_figure(width: float, height: float) -> Figure:
    """Return a figure that pyplot does not know."""
    figure = Figure(figsize=(width, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    return figure
