"""Keep a drawing within the part of the user's figure that belongs to its axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from matplotlib.layout_engine import PlaceHolderLayoutEngine, TightLayoutEngine
from matplotlib.transforms import Bbox

from lightning_cka.figures.layout import figure_of
from lightning_cka.figures.user_style import font_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.gridspec import SubplotSpec

_SMALLEST_SHARE = 0.42
"""Part of the width and of the height of its cell that the axes keep at least."""
_CHARACTER = 0.1
"""Width in inches of a wide character of a title."""
_TITLE_ROOM = 0.35
"""Height in inches for the title of axes below."""
_LABEL_ROOM = 0.56
"""Width in inches for the labels of axes at the right."""
_PAD = 0.04
"""Free room in inches between the labels and the next axes."""


def fit_into_cell(ax: Axes, again: Callable[[], object] | None = None) -> None:
    """Shrink axes so that their labels and their colour bar do not cover other axes.

    Labels may use the gap at the left and at the bottom of the axes, and the title the gap above. The colour bar stays
    in what were the axes. The axes fit again whenever the figure is drawn, such as after ``figure.tight_layout()``. In
    a figure with constrained layout, nothing happens: it makes room for everything.

    Args:
        ax: Axes with everything drawn. Axes without a place in a grid only make room for what is at their right.
        again: Draws what depends on the size of the axes once more, for the smaller axes.
    """
    locator = ax.get_axes_locator()
    if locator is not None and not isinstance(locator, _OwnCell):
        return
    ax.set_axes_locator(_OwnCell(ax))
    for _ in range(1 if again is None else 2):  # Labels that are rotated to fit take more room at the bottom.
        ax.get_tightbbox()  # It moves the axes.
        if again is not None:
            again()


class _OwnCell:
    """Says where axes are, whenever matplotlib asks for it (an "axes locator")."""

    def __init__(self, ax: Axes) -> None:
        self._ax = ax
        self._trial: Bbox | None = None
        self._known: tuple[Any, Bbox] | None = None

    def get_subplotspec(self) -> SubplotSpec | None:
        """Return the place in the grid, which `tight_layout` arranges."""
        return self._ax.get_subplotspec()

    def __call__(self, ax: Any, renderer: Any) -> Bbox:
        """Return the part of the figure or subfigure that the axes take."""
        if self._trial is not None:  # While the labels are measured.
            return self._trial
        box: Bbox = ax.get_position(original=True)
        if has_layout_engine(ax):
            return box
        cell, room = _cell_and_room(ax)
        drawn_for = (*box.bounds, *room.bounds, *ax.figure.bbox.bounds, figure_of(ax).dpi, _contents(ax))
        if self._known is None or self._known[0] != drawn_for:
            self._known = drawn_for, self._fitted(ax, renderer, cell, room)
        return self._known[1]

    def _fitted(self, ax: Axes, renderer: Any, cell: Bbox, room: Bbox) -> Bbox:
        """Measure what is drawn, and return where the axes fit."""
        box = ax.get_position(original=True)
        try:
            for _ in range(2):
                self._trial = box
                drawn = ax.get_tightbbox(renderer)
                if drawn is None:
                    break
                drawn = drawn.transformed(ax.figure.transSubfigure.inverted())
                x = _shrunk((box.x0, box.x1), (drawn.x0, drawn.x1), (room.x0, room.x1), _SMALLEST_SHARE * cell.width)
                y = _shrunk((box.y0, box.y1), (drawn.y0, drawn.y1), (room.y0, room.y1), _SMALLEST_SHARE * cell.height)
                box = Bbox.from_extents(x[0], y[0], x[1], y[1])
        finally:
            self._trial = None
        return box


def _contents(ax: Axes) -> tuple[Any, ...]:
    """Return values that change with a title, a label, ticks and how they look, the legend or the number of artists."""
    texts = tuple(text.get_text() for text in (ax.title, ax.xaxis.label, ax.yaxis.label))
    ticks = tuple((axis.get_ticklocs().tobytes(), str(axis.get_tick_params())) for axis in (ax.xaxis, ax.yaxis))
    return texts, ticks, id(ax.get_legend()), len(ax.get_children())


def axes_size(ax: Axes) -> tuple[float, float]:
    """Return the width and the height of axes in inches, or a part of it if a layout engine can still shrink them."""
    dpi, share = figure_of(ax).dpi, 0.6 if has_layout_engine(ax) else 1.0
    return share * ax.bbox.width / dpi, share * ax.bbox.height / dpi


def text_lengths(ax: Axes) -> tuple[int, int, int]:
    """Return how many characters fit: into a label of a layer, and into the titles of the x and the y axis.

    Labels of layers take less than half of the axes.
    """
    width, height = (int(length / (_CHARACTER * font_scale())) for length in axes_size(ax))
    return max(8, min(width, height) * 2 // 5), max(8, width), max(8, height)


def has_layout_engine(ax: Axes) -> bool:
    """Return whether the figure has room for what is around the axes when it is drawn: a constrained layout."""
    engine = figure_of(ax).get_layout_engine()
    return engine is not None and not isinstance(engine, PlaceHolderLayoutEngine | TightLayoutEngine)


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
    bottoms, tops, lefts, rights = place.get_gridspec().get_grid_positions(figure)
    row, column, last_row = place.rowspan.start, place.colspan.start, place.rowspan.stop - 1
    width, height = (length / figure_of(ax).dpi for length in (ax.figure.bbox.width, ax.figure.bbox.height))
    cell = place.get_position(figure)
    if isinstance(figure_of(ax).get_layout_engine(), TightLayoutEngine):
        return cell, cell  # It makes the cells larger, and the gaps between them small.
    left = rights[column - 1] if column > 0 else 0.0
    right = cell.x1
    if _is_beside_others(ax, place):
        right = min(right, lefts[place.colspan.stop] - _LABEL_ROOM * font_scale() / width)
    top = 1.0
    if row > 0:
        top = tops[row] + min(_TITLE_ROOM / height, 0.5 * (bottoms[row - 1] - tops[row]))
    bottom = 0.0
    if last_row + 1 < len(bottoms):
        below = tops[last_row + 1]
        bottom = below + min(_TITLE_ROOM / height, 0.5 * (bottoms[last_row] - below))
    return cell, Bbox.from_extents(left + _PAD / width, bottom + _PAD / height, right, top - _PAD / height)


def _is_beside_others(ax: Axes, place: SubplotSpec) -> bool:
    """Return whether axes that do not keep their labels in their own cell are at the right of the axes."""
    for other in ax.figure.axes:
        spot = other.get_subplotspec()
        if (
            spot is not None
            and spot.get_gridspec() is place.get_gridspec()
            and spot.colspan.start == place.colspan.stop
            and set(spot.rowspan) & set(place.rowspan)
            and not isinstance(other.get_axes_locator(), _OwnCell)
        ):
            return True
    return False
