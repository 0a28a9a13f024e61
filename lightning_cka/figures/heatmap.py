"""The heatmap of one CKA result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_cka.figures.cells import colour_bar
from lightning_cka.figures.flag_notes import notes_height, wrap_notes, write_below_axes
from lightning_cka.figures.heatmap_style import HeatmapStyle
from lightning_cka.figures.labels import MAX_LABEL, value_label
from lightning_cka.figures.layout import MAX_TICKS, figure_of, figure_width, label_room, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_cka.compare.result import CKAResult


def plot_cka(
    result: CKAResult,
    ax: Axes | None = None,
    *,
    add_text: bool = False,
    cmap: str = "magma",
    vmin: float = 0.0,
    vmax: float = 1.0,
    triangle: bool = False,
    max_ticks: int = MAX_TICKS,
    max_label: int = MAX_LABEL,
) -> tuple[Figure, Axes]:
    """Draw a result as a heatmap, with the model's layers on the y axis and the reference's on the x axis.

    The first layers are at the lower left. Flagged layers have a red label with a warning sign. Lines below the
    heatmap give the reasons.

    Args:
        result: Result with an ``(L, R)`` matrix of CKA values. Cells with ``nan`` are grey.
        ax: Axes to draw into. None makes a new figure.
        add_text: Whether to write the values into the cells, with their standard errors if these are known.
        cmap: Name of a matplotlib colour map.
        vmin: Value at the lower end of the colour map. Smaller values get the same colour.
        vmax: Value at the upper end of the colour map. Larger values get the same colour.
        triangle: Whether to draw each pair of layers only once. This needs a comparison of a model with itself.
        max_ticks: Maximum number of evenly spaced tick labels of each axis, at least 1. Flagged layers come on top.
        max_label: Maximum number of characters of a layer's name, at least 2. Longer names lose their middle, as far
            as labels stay distinct.

    Returns:
        The figure and its axes. The figure is not registered with pyplot: save it with ``figure.savefig``.

    Raises:
        ValueError: ``triangle`` is True, but the result compares two models.
        KeyError: ``cmap`` is not the name of a colour map.
    """
    style = HeatmapStyle(add_text, cmap, vmin, vmax, triangle, max_ticks, max_label)
    rows, columns, notes = style.labels(result)
    width = figure_width(columns, rows) if ax is None else figure_of(ax).get_figwidth()
    lines = wrap_notes(notes, width)
    if ax is None:
        ax = new_axes(columns, rows, below=notes_height(lines))
    image = style.draw(result, ax)
    colour_bar(ax, image, value_label(result), with_nan=bool(result.matrix.isnan().any()))
    ax.set_title(_moment(result), fontsize=10)
    if lines:
        write_below_axes(ax, lines, label_room(columns))
    return figure_of(ax), ax


def _moment(result: CKAResult) -> str:
    """Return the epoch and the step of a result, as far as they are known."""
    known = (f"{word} {value}" for word, value in (("epoch", result.epoch), ("step", result.step)) if value is not None)
    return ", ".join(known)
