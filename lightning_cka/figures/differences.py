"""The figure of the difference between two results: a heatmap of all pairs, or an interval for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from lightning_cka.compare.intervals import too_few_batches
from lightning_cka.figures.backgrounds import is_dark
from lightning_cka.figures.cell_marks import GREY, CellMarks
from lightning_cka.figures.cells import colour_bar, draw_cells
from lightning_cka.figures.flag_notes import notes_height, wrap_notes, write_below_axes, write_short_notes
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
from lightning_cka.figures.layout import MAX_TICKS, figure_of, figure_width, label_room, new_axes
from lightning_cka.figures.marker_sizes import marker_size
from lightning_cka.figures.own_cell import axes_size, fit_into_cell, text_lengths
from lightning_cka.figures.ticks import set_ticks
from lightning_cka.figures.title_room import title_lengths
from lightning_cka.figures.user_style import font_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_cka.compare.difference import CKADifference

_COLOUR, _ON_DARK = "#1f4e9c", "#7fb0ff"
_VALUE_LABELS = ["0"] * 12
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
    unless a line goes through them. The other figure has a confidence interval for each pair of layers, of the same
    name or as `CKADifference.pairing` says. Intervals of differences that are not significant are grey.

    Args:
        difference: The difference, from `CKAResult.difference`.
        ax: Axes to draw into. None makes a new figure.
        all_pairs: Whether to draw the heatmap of all pairs. None draws it if the difference has errors of layers
            that are not paired.
        level: Level of significance and of the intervals, in (0, 1); see `CKADifference.significant`.
        cmap: Name of a diverging matplotlib colour map for the heatmap.
        limit: Difference at the ends of the colour map, greater than 0. None: the largest difference.
        max_ticks: Maximum number of tick labels of each axis, at least 1.

    Returns:
        The figure and its axes.

    Raises:
        ValueError: ``level`` is out of range, or no layers are paired and ``all_pairs`` is False.
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
    """Return whether there is an error of layers that are not paired, or no layers are paired."""
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
    marks = CellMarks.of(values, difference.standard_error.numpy(), significant)
    if ax is None:
        lines = _note_lines(difference, marks.notes(level), figure_width(columns, rows))
        ax = new_axes(columns, rows, below=notes_height(lines))
        wide, tall = title_lengths([ax])
    if limit is None:
        largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
        limit = float(largest) or 1.0
    image = draw_cells(ax, values, cmap, -limit, limit)
    marks.draw(ax, image)
    colour_bar(ax, image, f"difference of {value_label(difference.later)}", with_nan=bool(np.isnan(values).any()))
    names = {difference.later.reference_name, difference.earlier.reference_name}
    reference = names.pop() if len(names) == 1 else "the reference"
    ax.set_xlabel(axis_title(reference, short_labels(difference.reference_layers)[1], max_length=wide))
    ax.set_ylabel(axis_title(_model_name(difference), short_labels(difference.layers)[1], max_length=tall))
    ax.set_title(plain(elided(difference.title, wide)), fontsize=font_size("title"))
    _write_note(ax, difference, marks.notes(level, ax), None if own else columns)

    def label() -> None:
        set_ticks(ax.xaxis, columns, max_ticks=max_ticks, names=difference.reference_layers)
        set_ticks(ax.yaxis, rows, max_ticks=max_ticks, names=difference.layers)

    label()
    if own:
        fit_into_cell(ax, again=label)
    return ax


def _draw_intervals(difference: CKADifference, ax: Axes | None, level: float, max_ticks: int) -> Axes:
    pairs = difference.same_named_pairs()
    if not pairs:
        raise ValueError("no layers of both sides are paired: draw the heatmap with all_pairs=True")
    own = ax is not None
    longest, wide, tall = (MAX_LABEL, MAX_TITLE, MAX_AXIS_TITLE) if ax is None else text_lengths(ax)
    names, prefix = short_labels(list(pairs), longest)
    notes = [f"{100 * level:g} % intervals", "filled: significant for all layers together (Holm)"]
    if ax is None:
        lines = _note_lines(difference, notes, figure_width(_VALUE_LABELS, names))
        ax = new_axes(_VALUE_LABELS, names, below=notes_height(lines))
        wide, tall = title_lengths([ax])
    cells = tuple(zip(*pairs.values(), strict=True))
    low, high = (bound.numpy()[cells] for bound in difference.bounds(level))
    values, significant = difference.matrix.numpy()[cells], difference.tested_cells(level).numpy()[cells]
    places = np.arange(len(names))
    ax.axvline(0, color=ax.spines["left"].get_edgecolor(), linewidth=0.8)
    strong = _ON_DARK if is_dark(ax) else _COLOUR
    size = marker_size(axes_size(ax)[1], len(names), 5.0, always=True)
    for chosen, colour, face in ((~significant, GREY, ax.get_facecolor()), (significant, strong, strong)):
        ax.hlines(places[chosen], low[chosen], high[chosen], color=colour, linewidth=0.32 * size)
        ax.plot(values[chosen], places[chosen], "o", color=colour, markerfacecolor=face, markersize=size, linestyle="")
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(2 if own else 5))
    ax.tick_params(axis="x", labelsize=font_size("tick"))
    ax.set_xlabel(_value_name(difference, wide))
    ax.set_ylabel(axis_title(_model_name(difference), prefix, max_length=tall))
    ax.set_title(plain(elided(difference.title, wide)), fontsize=font_size("title"))
    ax.spines[["top", "right"]].set_visible(False)
    _write_note(ax, difference, notes, None if own else _VALUE_LABELS)

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


def _note_lines(difference: CKADifference, notes: Sequence[str], width: float) -> list[str]:
    """Return what the marks mean, or why there are none, in lines that fit into a figure of this width."""
    few = too_few_batches(difference.effective_batches)
    joined = wrap_notes([few or "; ".join(notes)], width)
    return joined if few or len(joined) == 1 else wrap_notes(notes, width)


def _write_note(ax: Axes, difference: CKADifference, notes: Sequence[str], columns: Sequence[str] | None) -> None:
    """Write what the marks mean below the labels of the x axis; in the user's axes, above them and shorter."""
    if columns is None:
        few = too_few_batches(difference.effective_batches)
        short = ["too few batches to test"] if few else [note.split(" (")[0].split(" for all")[0] for note in notes]
        write_short_notes(ax, [(each, None) for each in short])
        return
    lines = _note_lines(difference, notes, figure_of(ax).get_figwidth())
    write_below_axes(ax, lines, label_room(columns, axes_size(ax)[0]), colour=None)
