"""Mark from which result on a layer stays within a tolerance of its last CKA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.lines import Line2D

from lightning_cka.figures.flag_notes import write_at_height
from lightning_cka.figures.labels import fitting
from lightning_cka.figures.user_style import chosen_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKER = "D"
_SIZE = 5.0
_SMALLEST = 2.0


def mark_label(tolerance: float, *, short: bool = False) -> str:
    """Return the legend's label of the marks, in two lines; ``short``, as in figures whose size the user chose."""
    if short or chosen_size() is not None:
        return f"within ±{tolerance:g}\nof the last"
    return f"from here within ±{tolerance:g}\nof the last value"


def draw_marks(ax: Axes, points: Sequence[tuple[float, float]], colour: Any = "black", *, room: float = _SIZE) -> None:
    """Draw a white diamond at each point.

    Args:
        ax: Axes to draw into.
        points: Places of the marks.
        colour: Colour of the edges.
        room: Height in points that a mark may have. Marks of rows that are less high are smaller.
    """
    if not points:
        return
    x, y = zip(*points, strict=True)
    size = min(_SIZE, max(_SMALLEST, room))
    style: dict[str, Any] = {
        "markerfacecolor": "white",
        "markeredgecolor": colour,
        "markersize": size,
        "markeredgewidth": size / _SIZE,
    }
    # The edge of the axes does not cut a mark in half.
    ax.plot(x, y, linestyle="none", marker=_MARKER, label="_settled", zorder=5, clip_on=False, **style)


def legend_mark() -> Line2D:
    """Return what a legend shows of a mark."""
    return Line2D(
        [], [], linestyle="none", marker=_MARKER, markerfacecolor="white", markeredgecolor="black", markersize=4
    )


def explain_above_axes(ax: Axes, tolerance: float, level: float, height: float, max_length: int) -> None:
    """Write one line with a mark between the axes and their title.

    Args:
        ax: Axes with marks.
        tolerance: The tolerance.
        level: Level of the confidence intervals.
        height: Distance of the line from the axes, in points.
        max_length: Number of characters that fit. The shortest wording may be longer.
    """
    wordings = (
        f"◇ from here within ±{tolerance:g} of the last value ({level:.0%})",
        f"◇ within ±{tolerance:g} of the last ({level:.0%})",
        f"◇ ±{tolerance:g} of the last",
        f"◇ ±{tolerance:g}",
    )
    write_at_height(ax, fitting(wordings, max_length), height)
