"""Sizes of figures and positions of axes, so that all labels fit. All lengths are in inches.

Figures have the size that users set in ``rcParams["figure.figsize"]``, if they did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_cka.compare.bank_series import INITIAL_LABEL, STEP_LABEL
from lightning_cka.figures.user_style import chosen_size, font_scale, room_scale, text_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_TICKS = 40
"""Default maximum number of ticks of an axis."""

SCREEN_DPI = 120
"""Dots per inch of figures until they are written to files."""

_CELL = 0.3
_MIN_SIDE, _MAX_SIDE = 2.4, 9.0
"""Bounds on a side of a heatmap."""
_CHARACTER = 0.065
"""Mean width of a character of a tick label."""
SMALLEST_SIDE = 0.8
"""Bound on a side of a heatmap in a figure whose size the user chose."""
_LABEL_HEIGHT = 0.125
"""Distance between the labels of neighbouring ticks of the y axis."""
_LEGEND_CHARACTER = 0.06
"""Mean width of a character of a legend."""


def figure_of(ax: Axes) -> Figure:
    """Return the figure that contains the axes, directly or in a subfigure."""
    figure = ax.figure
    while not isinstance(figure, Figure):
        figure = figure.figure
    return figure


def new_axes(
    columns: Sequence[str],
    rows: Sequence[str],
    below: float = 0.0,
    legend: Sequence[str] = (),
    above: float = 0.0,
    beside: float = 0.0,
) -> Axes:
    """Return axes in a new figure, with room for the labels and a colour bar.

    Cells are square, unless the bounds on the size of the axes forbid it.

    Args:
        columns: Labels of the x axis.
        rows: Labels of the y axis.
        below: Height of the free room under the title of the x axis.
        legend: Labels of the lines in a legend to the right of the axes.
        above: Height of the free room above the axes, beside that of the title.
        beside: Width of the free room to the right of the colour bar.
    """
    total_width = figure_width(columns, rows, legend, beside)
    left = left_room(rows)
    width = total_width - left - _right_room(legend) - beside
    bottom, top = label_room(columns, width) + below, 0.4 * room_scale() + above
    height = side(len(rows)) if (size := chosen_size()) is None else max(size[1] - bottom - top, SMALLEST_SIDE)
    total_height = bottom + height + top
    figure = new_figure(total_width, total_height)
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def figure_width(columns: Sequence[str], rows: Sequence[str], legend: Sequence[str] = (), beside: float = 0.0) -> float:
    """Return the width of the figure that `new_axes` makes."""
    left, right = left_room(rows), _right_room(legend) + beside
    if (size := chosen_size()) is not None:
        return max(size[0], left + SMALLEST_SIDE + right)
    return left + side(len(columns)) + right


def axes_below(ax: Axes, height: float, gap: float) -> Axes:
    """Make the figure taller, and return new axes below ``ax`` with the same width.

    If the user chose the size of the figure, the height of ``ax`` is shared between both instead.

    Args:
        ax: Axes in a figure without a layout engine. Their size and their distance from the top stay the same.
        height: Height of the new axes.
        gap: Distance between the two axes.
    """
    figure = figure_of(ax)
    width, old = figure.get_size_inches()
    box = ax.get_position()
    if chosen_size() is not None:
        upper = max(0.6 * (box.height * old - gap), SMALLEST_SIDE)
        height = max(box.height * old - gap - upper, SMALLEST_SIDE)
        grown = upper + gap + height - box.height * old
        figure.set_size_inches(width, old + grown)
        ax.set_position((box.x0, (box.y0 * old + height + gap) / (old + grown), box.width, upper / (old + grown)))
        return figure.add_axes((box.x0, box.y0 * old / (old + grown), box.width, height / (old + grown)))
    new = old + height + gap
    figure.set_size_inches(width, new)
    lowest = box.y0 * old
    ax.set_position((box.x0, (lowest + height + gap) / new, box.width, box.height * old / new))
    return figure.add_axes((box.x0, lowest / new, box.width, height / new))


def label_room(columns: Sequence[str], width: float | None = None) -> float:
    """Return the height that the labels and the title of the x axis need; see `labels_overlap`."""
    rotated = labels_overlap(columns, width)
    return 0.45 * room_scale() + (_character() * max(map(len, columns)) if rotated else 0.15 * text_scale("tick"))


def labels_overlap(labels: Sequence[str], width: float | None = None) -> bool:
    """Whether horizontal labels along the x axis would overlap, so that they must be rotated.

    Args:
        labels: The labels.
        width: Width of the axes. None takes that of a new figure.
    """
    if are_numbers(labels):  # Some of them are left out instead.
        return False
    room = side(len(labels)) if width is None else width
    return min(len(labels), MAX_TICKS) * (max(map(len, labels)) + 1) * _character() > room


def are_numbers(labels: Sequence[str]) -> bool:
    """Whether all labels are numbers, such as epochs, or the start of training."""
    return all(label.removeprefix(STEP_LABEL).isdecimal() or label == INITIAL_LABEL for label in labels)


def most_ticks(length: float) -> int:
    """Return how many ticks can have a label along an axis of this length, if labels of the x axis are rotated."""
    return max(1, int(length / (_LABEL_HEIGHT * text_scale("tick"))))


def most_numbers(length: float, numbers: Sequence[str]) -> int:
    """Return how many horizontal numbers can be side by side along an axis of this length."""
    return max(1, int(length / (_character() * (max(map(len, numbers)) + 1))))


def _character() -> float:
    """Return the mean width of a character of a tick label."""
    return _CHARACTER * text_scale("tick")


def left_room(rows: Sequence[str]) -> float:
    """Return the width that the labels and the title of the y axis need."""
    return 0.5 * room_scale() + _character() * max(map(len, rows))


def _right_room(legend: Sequence[str]) -> float:
    """Return the width that a colour bar or a legend needs."""
    character = _LEGEND_CHARACTER * text_scale("legend")
    return max(0.38 + 0.57 * font_scale(), 0.45 * room_scale() + character * max(map(len, legend), default=0))


def side(cells: int) -> float:
    """Return the length of an axis with this number of cells."""
    return min(max(_CELL * cells, _MIN_SIDE), _MAX_SIDE)


def new_figure(width: float, height: float) -> Figure:
    """Return a figure that pyplot does not know."""
    figure = Figure(figsize=(width, height), dpi=SCREEN_DPI)
    FigureCanvasAgg(figure)
    return figure
