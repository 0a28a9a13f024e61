"""`CellMarks`: which differences are significant, as marks in the cells of a heatmap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from lightning_cka.figures.cell_text import is_dark_value
from lightning_cka.figures.own_cell import axes_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

GREY = "#8a8f94"
"""Colour of lines that mean that something is not known."""
_SMALLEST = 4.0
"""Smallest side of a cell in points in which a mark can be seen. Smaller cells are hatched."""


@dataclass(frozen=True)
class CellMarks:
    """Marks of a matrix ``(rows, columns)``.

    Attributes:
        insignificant: Cells with a line through them.
        untested: Cells with a dot.
        negative: Cells with a minus sign: in greyscale, both ends of the colours are dark.
    """

    insignificant: NDArray[np.bool_]
    untested: NDArray[np.bool_]
    negative: NDArray[np.bool_]

    @classmethod
    def of(cls, values: NDArray[Any], errors: NDArray[Any], significant: NDArray[np.bool_]) -> CellMarks:
        """Return the marks of differences with these standard errors; ``nan`` has no marks."""
        is_tested, is_defined = np.isfinite(errors), np.isfinite(values)
        return cls(
            is_defined & is_tested & ~significant,
            is_defined & ~is_tested,
            is_defined & (significant | ~is_tested) & (values < 0),
        )

    def notes(self, level: float, ax: Axes | None = None) -> list[str]:
        """Return what the marks mean.

        Args:
            level: Level of significance.
            ax: Axes of the cells, whose size decides what is drawn. None: axes with room for all marks.
        """
        small = ax is not None and not self._fit(ax)
        notes = [f"{'hatched' if small else 'line through a cell'}: not significant (level {level:g}, Holm)"]
        if self.untested.any():
            notes.append(f"{'dotted' if small else 'dot'}: no standard error")
        if self.negative.any() and not small:
            notes.append("minus: below 0")
        return notes

    def draw(self, ax: Axes, image: AxesImage) -> None:
        """Draw a mark into each cell. If cells are small, hatch their area instead, without minus signs."""
        if not self._fit(ax):
            hatch(ax, self.insignificant, "////")
            hatch(ax, self.untested, "....")
            return
        most = max(self.insignificant.shape)
        lines = [[(x - 0.32, y - 0.32), (x + 0.32, y + 0.32)] for y, x in np.argwhere(self.insignificant)]
        ax.add_collection(LineCollection(lines, colors=GREY, linewidths=_between(0.3, 12 / most, 0.9)), autolim=False)
        y, x = np.nonzero(self.untested)
        ax.plot(x, y, ".", color=GREY, markersize=_between(1.0, 60 / most, 4.0), linestyle="")
        lines = [[(x - 0.22, y), (x + 0.22, y)] for y, x in np.argwhere(self.negative)]
        values: Any = image.get_array()
        colours = ["white" if is_dark_value(image, value) else "black" for value in values[self.negative]]
        minus = LineCollection(lines, colors=colours, linewidths=_between(0.4, 12 / most, 1.1))
        ax.add_collection(minus, autolim=False)

    def _fit(self, ax: Axes) -> bool:
        """Whether there is room for a mark in each cell."""
        (rows, columns), (width, height) = self.negative.shape, axes_size(ax)
        return bool(min(width / columns, height / rows) * 72 >= _SMALLEST)


def _between(low: float, value: float, high: float) -> float:
    return max(low, min(high, value))


def hatch(ax: Axes, cells: NDArray[np.bool_], pattern: str) -> None:
    """Hatch the area of cells ``(rows, columns)``, with lines whose distance does not depend on the cells."""
    if not cells.any():
        return
    edges = np.diff(np.pad(cells, ((0, 0), (1, 1))).astype(int), axis=1)
    (rows, starts), (_, stops) = np.nonzero(edges == 1), np.nonzero(edges == -1)  # Cells side by side are one piece.
    left, right, low, high = starts - 0.5, stops - 0.5, rows - 0.5, rows + 0.5
    corners = np.array([[left, low], [right, low], [right, high], [left, high], [left, low]]).transpose(2, 0, 1)
    codes = np.tile([Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY], len(rows))
    area = Path(corners.reshape(-1, 2), codes)
    patch = PathPatch(area, facecolor="none", edgecolor=GREY, linewidth=0, hatch=pattern)
    if hasattr(patch, "set_hatch_linewidth"):  # Older versions of matplotlib only know rcParams["hatch.linewidth"].
        patch.set_hatch_linewidth(0.5)
    ax.add_patch(patch)
