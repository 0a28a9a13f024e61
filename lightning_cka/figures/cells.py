"""Draw a matrix as coloured cells, with a colour bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, ListedColormap, to_hex
from matplotlib.transforms import ScaledTranslation, blended_transform_factory
from numpy.typing import NDArray

from lightning_cka.figures.cell_marks import hatch
from lightning_cka.figures.layout import figure_of
from lightning_cka.figures.user_style import font_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_NAN_COLOUR = "#c8ccd0"
_BAR_WIDTH = 0.14
"""Width of a colour bar in inches."""


def draw_cells(
    ax: Axes,
    values: NDArray[Any],
    cmap: str | Colormap,
    vmin: float,
    vmax: float,
    hidden: NDArray[np.bool_] | None = None,
) -> AxesImage:
    """Draw a matrix with its first row at the bottom.

    Args:
        ax: Axes to draw into.
        values: The matrix ``(rows, columns)``. Cells with ``nan`` are grey and hatched, also for prints in grey.
        cmap: A matplotlib colour map or its name.
        vmin: Value at the lower end of the colour map.
        vmax: Value at the upper end of the colour map.
        hidden: Mask ``(rows, columns)`` of cells that have the background colour. None draws all cells.

    Returns:
        The image of the cells.
    """
    undefined = np.isnan(values) if hidden is None else np.isnan(values) & ~hidden
    hatch(ax, undefined, "////")
    colours = (colormaps[cmap] if isinstance(cmap, str) else cmap).with_extremes(bad=_NAN_COLOUR)
    style: dict[str, Any] = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    image = ax.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=vmin, vmax=vmax, **style)
    if hidden is not None:
        ax.imshow(
            np.ma.masked_where(~hidden, np.zeros(values.shape)),
            cmap=ListedColormap([to_hex(ax.get_facecolor())]),
            **style,
        )
    return image


def colour_bar(ax: Axes, image: AxesImage, label: str, *, with_nan: bool, down_to: Axes | None = None) -> None:
    """Draw a colour bar to the right of the axes. Its width does not depend on the axes, also if their size changes.

    Args:
        ax: Axes of the cells.
        image: Image of the cells.
        label: Name of the values.
        with_nan: Whether to explain the hatched cells.
        down_to: The lowest axes that the bar belongs to; it ends where they end. None: ``ax``.
    """
    to_pixels: Any = ax.transAxes
    inches_from_right_edge = figure_of(ax).dpi_scale_trans + ScaledTranslation(1, 0, to_pixels)
    place = blended_transform_factory(inches_from_right_edge, ax.transAxes)
    box, lowest = ax.get_position(), (ax if down_to is None else down_to).get_position().y0
    bottom = (lowest - box.y0) / box.height
    bar = ax.inset_axes((_BAR_WIDTH, bottom, _BAR_WIDTH, 1.0 - bottom), transform=place)
    ax.figure.colorbar(image, cax=bar, label=label)
    bar.tick_params(labelsize=font_size("tick"))
    if with_nan:
        below_lowest_tick = -0.7 * font_size("tick")
        bar.annotate(
            "hatched: nan",
            (0, 0),
            (0, below_lowest_tick),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="left",
            va="top",
            fontsize=font_size("tick"),
            annotation_clip=False,
        )
