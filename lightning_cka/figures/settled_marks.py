"""Mark from which result on a layer stays within a tolerance of its last CKA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.lines import Line2D

from lightning_cka.figures.flag_notes import write_at_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKER = "D"
_SIZE = 5.0


def mark_label(tolerance: float) -> str:
    """Return the legend's label of the marks, in two lines."""
    return f"from here within ±{tolerance:g}\nof the last value"


def draw_marks(ax: Axes, points: Sequence[tuple[float, float]], colour: Any = "black") -> None:
    """Draw a white diamond at each point.

    Args:
        ax: Axes to draw into.
        points: Places of the marks.
        colour: Colour of the edges.
    """
    if not points:
        return
    x, y = zip(*points, strict=True)
    style: dict[str, Any] = {
        "markerfacecolor": "white",
        "markeredgecolor": colour,
        "markersize": _SIZE,
        "markeredgewidth": 1.0,
    }
    # The edge of the axes does not cut a mark in half.
    ax.plot(x, y, linestyle="none", marker=_MARKER, label="_settled", zorder=5, clip_on=False, **style)


def legend_mark() -> Line2D:
    """Return what a legend shows of a mark."""
    return Line2D(
        [], [], linestyle="none", marker=_MARKER, markerfacecolor="white", markeredgecolor="black", markersize=4
    )


def explain_above_axes(ax: Axes, tolerance: float, level: float, height: float) -> None:
    """Write one line with a mark between the axes and their title.

    Args:
        ax: Axes with marks.
        tolerance: The tolerance.
        level: Level of the confidence intervals.
        height: Distance of the line from the axes, in points.
    """
    write_at_height(ax, f"◇ {' '.join(mark_label(tolerance).split())} ({level:.0%})", height)
