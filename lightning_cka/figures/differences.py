"""The figure of the difference between two results: a heatmap of all pairs, or an interval for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from lightning_cka.compare.intervals import too_few_batches
from lightning_cka.figures.backgrounds import is_dark
from lightning_cka.figures.cell_text import is_dark_value
from lightning_cka.figures.cells import colour_bar, draw_cells
from lightning_cka.figures.flag_notes import write_short_notes
from lightning_cka.figures.labels import (
    MAX_AXIS_TITLE,
    MAX_LABEL,
    MAX_TITLE,
    axis_title,
    elided,
    plain,
    short_labels,
    value_label,
)
from lightning_cka.figures.layout import MAX_TICKS, figure_of, label_room, new_axes
from lightning_cka.figures.own_cell import fit_into_cell, text_lengths
from lightning_cka.figures.ticks import set_ticks
from lightning_cka.figures.user_style import font_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    from lightning_cka.compare.difference import CKADifference

_COLOUR, _ON_DARK, _GREY = "#1f4e9c", "#7fb0ff", "#8a8f94"
_VALUE_LABELS = [" " * 6] * 12
"""Stand-ins for the tick labels of the x axis, which give the axes their width."""


def plot_difference(
    difference: CKADifference,
    ax: Axes | None = None,
    *,
    all_pairs: bool | None = None,
    level: float = 0.95,
    cmap: str = "RdBu_r",
    limit: float | None = None,
    max_ticks: int = MAX_TICKS,
) -> tuple[Figure, Axes]:
    """Draw by how much CKA differs between two results, and which differences are significant.

    The heatmap of all pairs has white for no difference. A line through a cell marks a difference that is not
    significant, and a dot one without a standard error. Cells below 0 have a minus sign, also for prints in grey,
    unless a line goes through them. The other figure has a confidence interval for each layer with its layer of the
    same name. Intervals of differences that are not significant are grey.

    Args:
        difference: The difference, from `CKAResult.difference`.
        ax: Axes to draw into. None makes a new figure.
        all_pairs: Whether to draw the heatmap of all pairs. None draws it if the difference has errors of pairs with
            different names.
        level: Level of significance and of the intervals, in (0, 1); see `CKADifference.significant`.
        cmap: Name of a diverging matplotlib colour map for the heatmap.
        limit: Difference at the ends of the colour map, greater than 0. None: the largest difference.
        max_ticks: Maximum number of tick labels of each axis, at least 1.

    Returns:
        The figure and its axes.

    Raises:
        ValueError: ``level`` is out of range, or no layers have the same name and ``all_pairs`` is False.
        KeyError: ``cmap`` is not the name of a colour map.
    """
    if all_pairs is None:
        all_pairs = _knows_other_pairs(difference)
    if all_pairs:
        ax = _draw_heatmap(difference, ax, level, cmap, limit, max_ticks)
    else:
        ax = _draw_intervals(difference, ax, level, max_ticks)
    return figure_of(ax), ax


def _knows_other_pairs(difference: CKADifference) -> bool:
    """Return whether there is an error for a pair of layers with different names, or no pair of the same name."""
    known = ~difference.standard_error.isnan()
    pairs = difference.same_named_pairs()
    for cell in pairs.values():
        known[cell] = False
    return bool(known.any()) or not pairs


def _draw_heatmap(
    difference: CKADifference, ax: Axes | None, level: float, cmap: str, limit: float | None, max_ticks: int
) -> Axes:
    values = difference.matrix.numpy()
    significant = difference.tested_cells(level).numpy()
    own = ax is not None
    longest, wide, tall = (MAX_LABEL, MAX_AXIS_TITLE, MAX_AXIS_TITLE) if ax is None else text_lengths(ax)
    rows, columns = (short_labels(names, longest)[0] for names in (difference.layers, difference.reference_layers))
    if ax is None:
        ax = new_axes(columns, rows, below=0.2)
    if limit is None:
        largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
        limit = float(largest) or 1.0
    image = draw_cells(ax, values, cmap, -limit, limit)
    is_tested, is_defined = np.isfinite(difference.standard_error.numpy()), np.isfinite(values)
    _mark_cells(ax, is_defined & is_tested & ~significant)
    _dot_cells(ax, is_defined & ~is_tested)
    negative = is_defined & (significant | ~is_tested) & (values < 0)
    _draw_minus(ax, image, values, negative)
    colour_bar(ax, image, f"difference of {value_label(difference.later)}", with_nan=bool(np.isnan(values).any()))
    names = {difference.later.reference_name, difference.earlier.reference_name}
    reference = names.pop() if len(names) == 1 else "the reference"
    ax.set_xlabel(axis_title(reference, short_labels(difference.reference_layers)[1], max_length=wide))
    ax.set_ylabel(axis_title(_model_name(difference), short_labels(difference.layers)[1], max_length=tall))
    ax.set_title(plain(elided(difference.title, 60)), fontsize=font_size("title"))
    notes = [f"line through a cell: not significant (level {level:g}, Holm)"]
    if (is_defined & ~is_tested).any():
        notes.append("dot: no standard error")
    if negative.any():
        notes.append("minus: below 0")
    _write_note(ax, difference, notes, None if own else label_room(columns))

    def label() -> None:
        set_ticks(ax.xaxis, columns, max_ticks=max_ticks, names=difference.reference_layers)
        set_ticks(ax.yaxis, rows, max_ticks=max_ticks, names=difference.layers)

    label()
    if own:
        fit_into_cell(ax, again=label)
    return ax


def _mark_cells(ax: Axes, cells: NDArray[np.bool_]) -> None:
    """Draw a thin diagonal line through each of the cells ``(rows, columns)``."""
    lines = [[(column - 0.32, row - 0.32), (column + 0.32, row + 0.32)] for row, column in np.argwhere(cells)]
    width = max(0.3, min(0.9, 12 / max(cells.shape)))
    ax.add_collection(LineCollection(lines, colors=_GREY, linewidths=width), autolim=False)


def _draw_minus(ax: Axes, image: AxesImage, values: NDArray[Any], cells: NDArray[np.bool_]) -> None:
    """Draw a minus sign into each of the cells ``(rows, columns)``: in greyscale, both ends of the colours are dark."""
    lines = [[(column - 0.22, row - 0.25), (column + 0.22, row - 0.25)] for row, column in np.argwhere(cells)]
    colours = ["white" if is_dark_value(image, value) else "black" for value in values[cells]]
    width = max(0.4, min(1.1, 12 / max(cells.shape)))
    ax.add_collection(LineCollection(lines, colors=colours, linewidths=width), autolim=False)


def _dot_cells(ax: Axes, cells: NDArray[np.bool_]) -> None:
    """Draw a dot into each of the cells ``(rows, columns)``."""
    rows, columns = np.nonzero(cells)
    ax.plot(columns, rows, ".", color=_GREY, markersize=max(1.0, min(4.0, 60 / max(cells.shape))), linestyle="")


def _draw_intervals(difference: CKADifference, ax: Axes | None, level: float, max_ticks: int) -> Axes:
    pairs = difference.same_named_pairs()
    if not pairs:
        raise ValueError("no layers of both sides have the same name: draw the heatmap with all_pairs=True")
    own = ax is not None
    longest, wide, tall = (MAX_LABEL, MAX_TITLE, MAX_AXIS_TITLE) if ax is None else text_lengths(ax)
    names, prefix = short_labels(list(pairs), longest)
    if ax is None:
        ax = new_axes(_VALUE_LABELS, names, below=0.2)
    cells = tuple(zip(*pairs.values(), strict=True))
    low, high = (bound.numpy()[cells] for bound in difference.bounds(level))
    values, significant = difference.matrix.numpy()[cells], difference.tested_cells(level).numpy()[cells]
    places = np.arange(len(names))
    ax.axvline(0, color=ax.spines["left"].get_edgecolor(), linewidth=0.8)
    strong = _ON_DARK if is_dark(ax) else _COLOUR
    for chosen, colour, face in ((~significant, _GREY, ax.get_facecolor()), (significant, strong, strong)):
        ax.hlines(places[chosen], low[chosen], high[chosen], color=colour, linewidth=1.6)
        ax.plot(values[chosen], places[chosen], "o", color=colour, markerfacecolor=face, markersize=5, linestyle="")
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(2 if own else 5))
    ax.tick_params(axis="x", labelsize=font_size("tick"))
    ax.set_xlabel(_value_name(difference, wide))
    ax.set_ylabel(axis_title(_model_name(difference), prefix, max_length=tall))
    ax.set_title(plain(elided(difference.title, 60)), fontsize=font_size("title"))
    ax.spines[["top", "right"]].set_visible(False)
    notes = [f"{100 * level:g} % intervals", "filled: significant for all layers together (Holm)"]
    _write_note(ax, difference, notes, None if own else 0.6)

    def label() -> None:
        set_ticks(ax.yaxis, names, max_ticks=max_ticks, names=list(pairs))

    label()
    if own:
        fit_into_cell(ax, again=label)
    return ax


def _model_name(difference: CKADifference) -> str:
    """Return the name of the model, or "" if both results have different models, which the title names."""
    later, earlier = difference.later.model_name, difference.earlier.model_name
    return later if later == earlier else ""


def _value_name(difference: CKADifference, max_length: int) -> str:
    """Return what the figure shows, with the reference if both results have the same one."""
    later, earlier = difference.later, difference.earlier
    same = later.reference_name == earlier.reference_name and not difference.self_comparison
    value = value_label(later) if value_label(later) == value_label(earlier) else difference.value_title
    text = f"difference of {value} with {elided(later.reference_name)}" if same else f"difference of {value}"
    return plain(text if len(text) <= max_length else f"difference of {value}")


def _write_note(ax: Axes, difference: CKADifference, notes: Sequence[str], distance: float | None) -> None:
    """Write below the axes what the marks mean, or why there are none; in the user's axes, above them and shorter."""
    few = too_few_batches(difference.effective_batches)
    if distance is None:
        short = ["too few batches to test"] if few else [note.split(" (")[0].split(" for all")[0] for note in notes]
        write_short_notes(ax, [(each, None) for each in short])
        return
    note = few or "; ".join(notes)
    height = ax.get_position().height * figure_of(ax).get_figheight()
    ax.text(
        0.5,
        -(distance - 0.02) / height,
        note,
        transform=ax.transAxes,
        ha="center",
        va="top",
        fontsize=font_size("note"),
    )
