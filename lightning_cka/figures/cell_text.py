"""Values in the cells of a heatmap, which are drawn only where they fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.text import Text
from numpy.typing import NDArray

from lightning_cka.figures.user_style import font_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.image import AxesImage

_SMALLEST = 4.0
"""Smallest font size in points that can be read in print."""
_PART = 0.9
"""Part of the width and of the height of a cell that a text may take."""


def write_values(
    ax: Axes,
    image: AxesImage,
    values: NDArray[Any],
    errors: NDArray[Any] | None,
    hidden: NDArray[np.bool_] | None = None,
) -> None:
    """Write values into the cells, in black on bright cells and in white on dark ones.

    The size of the text is chosen whenever the figure is drawn, so that it fits also after the figure was resized.
    Without enough room for values and errors, there are only values; without room for these, nothing.

    Args:
        ax: Axes of the cells.
        image: Image of the cells.
        values: The matrix ``(rows, columns)``.
        errors: Standard errors ``(rows, columns)``. None writes values only.
        hidden: Mask ``(rows, columns)`` of cells that stay empty. None fills all cells.
    """
    shown = np.ones(values.shape, bool) if hidden is None else ~hidden
    short = {cell: _number(values[cell], 2) for cell in zip(*np.nonzero(shown), strict=True)}
    wordings = [short]
    if errors is not None:
        wordings.insert(0, {cell: _with_error(values[cell], errors[cell]) for cell in short})
    room = _Room([list(each.values()) for each in wordings])
    for row, column in short:
        colour = "white" if is_dark_value(image, values[row, column]) else "black"
        texts = [each[row, column] for each in wordings]
        ax.add_artist(_CellText(column, row, texts, room, color=colour))


class _Room:
    """Which wording fits into the cells of some axes, and at which font size."""

    def __init__(self, wordings: Sequence[Sequence[str]]) -> None:
        self._longest = [max(texts, key=_extent, default="") for texts in wordings]
        self._known: dict[Any, tuple[int, float] | None] = {}

    def choice(self, ax: Axes, renderer: RendererBase) -> tuple[int, float] | None:
        """Return the index of the wording and the font size in points; None if no wording fits."""
        (x0, y0), (x1, y1) = ax.transData.transform([(0, 0), (1, 1)])
        cell, pixels = (abs(x1 - x0), abs(y1 - y0)), _pixels_per_point(renderer)
        key = (*cell, pixels, type(renderer))
        if key not in self._known:
            self._known = {key: self._choose(ax, cell, pixels, renderer)}
        return self._known[key]

    def _choose(
        self, ax: Axes, cell: tuple[float, float], pixels: float, renderer: RendererBase
    ) -> tuple[int, float] | None:
        largest = font_size("tick")
        if min(cell) < _SMALLEST * pixels:
            return None
        for index, longest in enumerate(self._longest):
            sample = Text(0, 0, longest, fontsize=largest, linespacing=1)
            sample.set_figure(ax.figure)
            size = _fitting_size(sample, cell, renderer)
            if size >= min(_SMALLEST, largest):
                return index, size
        return None


def _pixels_per_point(renderer: Any) -> float:
    return float(renderer.points_to_pixels(1))


def _fitting_size(sample: Text, cell: tuple[float, float], renderer: RendererBase) -> float:
    """Make a text smaller until it fits into a cell, and return its font size in points.

    Widths are not proportional to the font size, because letters begin at whole pixels.
    """
    size = font_size("tick")
    for _ in range(4):
        box = sample.get_window_extent(renderer)
        factor = _PART * min(cell[0] / box.width, cell[1] / box.height)
        if factor >= 1:
            return size
        size *= 0.99 * factor
        sample.set_fontsize(size)
    return 0.0


class _CellText(Text):
    """A text that is as large as its cell allows, and is not drawn if that is too small."""

    def __init__(self, x: float, y: float, wordings: Sequence[str], room: _Room, **style: Any) -> None:
        super().__init__(x, y, wordings[0], ha="center", va="center", linespacing=1, **style)
        self._wordings, self._room = wordings, room
        self.set_in_layout(False)  # It is inside the axes, and its size depends on theirs.

    def draw(self, renderer: RendererBase) -> None:
        ax: Any = self.axes
        chosen = self._room.choice(ax, renderer)
        if chosen is not None:
            index, size = chosen
            self.set_text(self._wordings[index])
            self.set_fontsize(size)
            super().draw(renderer)


def _extent(text: str) -> int:
    """Return the number of characters in the longest line of a text."""
    return max(map(len, text.split("\n")))


def _number(value: float, digits: int) -> str:
    """Return a number without a minus sign before zero."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}"


def _with_error(value: float, error: float) -> str:
    """Return a value and its standard error, in two lines. An error that is not known is left out."""
    return _number(value, 3) + (f"\n±{error:.3f}" if np.isfinite(error) else "")


def is_dark_value(image: AxesImage, value: Any) -> bool:
    """Whether the cell of this value has less than half of the luma of white (ITU-R BT.601)."""
    red, green, blue, _ = image.cmap(image.norm(value))
    return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.5)
