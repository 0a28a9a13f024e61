"""Draw a matrix as coloured cells, with a colour bar and with values in the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.transforms import ScaledTranslation, blended_transform_factory
from numpy.typing import NDArray

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
        values: The matrix ``(rows, columns)``. Cells with ``nan`` are grey.
        cmap: A matplotlib colour map or its name.
        vmin: Value at the lower end of the colour map.
        vmax: Value at the upper end of the colour map.
        hidden: Mask ``(rows, columns)`` of cells that stay white. None draws all cells.

    Returns:
        The image of the cells.
    """
    colours = (colormaps[cmap] if isinstance(cmap, str) else cmap).with_extremes(bad=_NAN_COLOUR)
    style: dict[str, Any] = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    image = ax.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=vmin, vmax=vmax, **style)
    if hidden is not None:
        ax.imshow(np.ma.masked_where(~hidden, np.zeros(values.shape)), cmap=ListedColormap(["white"]), **style)
    return image


def colour_bar(ax: Axes, image: AxesImage, label: str, *, with_nan: bool) -> None:
    """Draw a colour bar to the right of the axes. Its width does not depend on the axes, also if their size changes.

    Args:
        ax: Axes of the cells.
        image: Image of the cells.
        label: Name of the values.
        with_nan: Whether to explain the grey cells.
    """
    to_pixels: Any = ax.transAxes
    inches_from_right_edge = figure_of(ax).dpi_scale_trans + ScaledTranslation(1, 0, to_pixels)
    place = blended_transform_factory(inches_from_right_edge, ax.transAxes)
    bar = ax.inset_axes((_BAR_WIDTH, 0.0, _BAR_WIDTH, 1.0), transform=place)
    ax.figure.colorbar(image, cax=bar, label=label)
    bar.tick_params(labelsize=font_size("tick"))
    if with_nan:
        bar.text(0, -0.02, "grey: nan", transform=bar.transAxes, ha="left", va="top", fontsize=font_size("tick"))


def write_values(
    ax: Axes,
    image: AxesImage,
    values: NDArray[Any],
    errors: NDArray[Any] | None,
    hidden: NDArray[np.bool_] | None = None,
) -> None:
    """Write values into the cells, in black on bright cells and in white on dark ones.

    Args:
        ax: Axes of the cells.
        image: Image of the cells.
        values: The matrix ``(rows, columns)``.
        errors: Standard errors ``(rows, columns)``. None writes values only.
        hidden: Mask ``(rows, columns)`` of cells that stay empty. None fills all cells.
    """
    size = max(3.0, min(8.0, 160 / max(values.shape))) * (1.0 if errors is None else 0.8)
    for (row, column), value in np.ndenumerate(values):
        if hidden is not None and hidden[row, column]:
            continue
        text = f"{value:.2f}" if errors is None else f"{value:.3f}\n±{errors[row, column]:.3f}"
        colour = "white" if _is_dark(image, value) else "black"
        ax.text(column, row, text, ha="center", va="center", fontsize=size, color=colour, linespacing=1)


def _is_dark(image: AxesImage, value: Any) -> bool:
    """Whether the cell of this value has less than half of the luma of white (ITU-R BT.601)."""
    red, green, blue, _ = image.cmap(image.norm(value))
    return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.5)
