"""Keep a drawing within the part of the user's figure that belongs to its axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.transforms import Bbox

from lightning_cka.figures.layout import figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SMALLEST_SHARE = 0.42
"""Part of the width and of the height of its cell that the axes keep at least."""
_TITLE_ROOM = 0.35
"""Height in inches for the title of axes below."""
_PAD = 0.04
"""Free room in inches between the labels and the next axes."""


def fit_into_cell(ax: Axes) -> None:
    """Shrink axes so that their labels and their colour bar do not cover other axes.

    Labels may use the gap at the left and at the bottom of the axes, and the title the gap above. The colour bar stays
    in what were the axes. In a figure with a layout engine, nothing happens: the engine makes room for everything.

    Args:
        ax: Axes with everything drawn. Axes without a place in a grid only make room for what is at their right.
    """
    if has_layout_engine(ax) or ax.get_axes_locator() is not None:
        return
    cell, room = _cell_and_room(ax)
    to_pixels = ax.figure.transSubfigure
    for _ in range(2):
        drawn = ax.get_tightbbox()
        if drawn is None:
            return
        drawn, box = drawn.transformed(to_pixels.inverted()), ax.get_position()
        x0, x1 = _shrunk((box.x0, box.x1), (drawn.x0, drawn.x1), (room.x0, room.x1), _SMALLEST_SHARE * cell.width)
        y0, y1 = _shrunk((box.y0, box.y1), (drawn.y0, drawn.y1), (room.y0, room.y1), _SMALLEST_SHARE * cell.height)
        ax.set_position((x0, y0, x1 - x0, y1 - y0))
        ax.set_in_layout(True)  # Else `tight_layout` would leave these axes out from now on.


def axes_size(ax: Axes) -> tuple[float, float]:
    """Return the width and the height of axes in inches, or a part of it if a layout engine can still shrink them."""
    dpi, share = figure_of(ax).dpi, 0.75 if has_layout_engine(ax) else 1.0
    return share * ax.bbox.width / dpi, share * ax.bbox.height / dpi


def has_layout_engine(ax: Axes) -> bool:
    """Return whether the figure arranges its axes when it is drawn, as with ``layout="constrained"``."""
    engine = figure_of(ax).get_layout_engine()
    return engine is not None and not isinstance(engine, PlaceHolderLayoutEngine)


def _shrunk(
    box: tuple[float, float], drawn: tuple[float, float], room: tuple[float, float], smallest: float
) -> tuple[float, float]:
    """Return the ends of the axes in one direction, such that everything that is drawn lies within the room."""
    low = box[0] + max(0.0, room[0] - drawn[0])
    high = box[1] - max(0.0, drawn[1] - room[1])
    if high - low >= smallest:
        return low, high
    middle = min(max((low + high) / 2, box[0] + smallest / 2), box[1] - smallest / 2)
    return middle - smallest / 2, middle + smallest / 2


def _cell_and_room(ax: Axes) -> tuple[Bbox, Bbox]:
    """Return the axes' cell of the grid, and the room for labels too, as parts of the figure or subfigure."""
    place = ax.get_subplotspec()
    if place is None:
        box = ax.get_position(original=True)
        return box, Bbox.from_extents(-9.0, -9.0, box.x1, 9.0)
    figure: Any = ax.figure  # Also a subfigure, which the annotations of matplotlib leave out.
    bottoms, tops, _, rights = place.get_gridspec().get_grid_positions(figure)
    row, column, last_row = place.rowspan.start, place.colspan.start, place.rowspan.stop - 1
    width, height = (length / figure_of(ax).dpi for length in (ax.figure.bbox.width, ax.figure.bbox.height))
    cell = place.get_position(figure)
    left = rights[column - 1] if column > 0 else 0.0
    top = 1.0
    if row > 0:
        top = tops[row] + min(_TITLE_ROOM / height, 0.5 * (bottoms[row - 1] - tops[row]))
    bottom = 0.0
    if last_row + 1 < len(bottoms):
        below = tops[last_row + 1]
        bottom = below + min(_TITLE_ROOM / height, 0.5 * (bottoms[last_row] - below))
    return cell, Bbox.from_extents(left + _PAD / width, bottom + _PAD / height, cell.x1, top - _PAD / height)
