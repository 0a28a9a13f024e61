"""The drift map: how far each layer is from the reference, result by result."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lightning_cka.decisions.settled import DEFAULT_TOLERANCE
from lightning_cka.figures.ceiling_lines import legend_lines
from lightning_cka.figures.cells import colour_bar, draw_cells
from lightning_cka.figures.colour_range import Bound, colour_range, narrow_range_note
from lightning_cka.figures.flag_notes import marked, write_above_axes, write_at_height
from lightning_cka.figures.labels import (
    MAX_LABEL,
    axis_title,
    fitting,
    plain,
    reference_title,
    short_labels,
    value_label,
)
from lightning_cka.figures.layer_history import LayerHistory, layer_history, moment_labels
from lightning_cka.figures.layout import axes_below, figure_of, label_room, new_axes
from lightning_cka.figures.own_cell import axes_size, fit_into_cell, text_lengths
from lightning_cka.figures.settled_marks import draw_marks, explain_above_axes, mark_label
from lightning_cka.figures.ticks import set_ticks
from lightning_cka.figures.title_room import title_lengths
from lightning_cka.figures.trends import plot_trend
from lightning_cka.figures.user_style import font_size, text_scale
from lightning_cka.runtime.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from lightning_cka.compare.result import CKAResult
    from lightning_cka.decisions.ceiling import SeedCeiling

_LEVEL = 0.95
_TREND_HEIGHT = 1.8
"""Height in inches of the trend below the map."""


_NOTE_HEIGHT = 11
"""Height in points of a line between the map and its title."""


def plot_drift(
    results: Sequence[CKAResult],
    ax: Axes | None = None,
    *,
    cmap: str | Colormap = "magma",
    tolerance: float | None = DEFAULT_TOLERANCE,
    vmin: Bound = 0.0,
    vmax: Bound | None = None,
    flags: bool = True,
    colorbar: bool = True,
    title: str | None = None,
    ceiling: SeedCeiling | None = None,
) -> tuple[Figure, Axes]:
    """Draw a layer-by-epoch map of CKA with the reference's layer that each layer is paired with.

    A layer that is flagged in one of the results has a red label with a warning sign. A line below the title says in
    which results.

    A diamond marks the result from which on a layer stays within a tolerance of its last CKA, with a confidence of
    95 %: the intervals of all later paired differences to the last result lie inside the tolerance. A layer without a
    diamond may have changed until the end, its probe set may be too small to tell, or some results may lack the
    records of their batches, such as those of older versions.

    In your own axes, there is the map alone. The axes become smaller to make room for labels and colour bar.

    Args:
        results: Results of one reference, in order; at least one. Values are ``nan`` where a result lacks a layer.
        ax: Axes to draw into. None makes a new figure, with `plot_trend` of the same results below the map if there
            are at least two.
        cmap: A matplotlib colour map or its name.
        tolerance: Change of CKA that does not matter, greater than 0. The default is 0.01, about the smallest step that
            one sees in the colours. None draws no diamonds.
        vmin: As in `plot_cka`, for the values of the map.
        vmax: As in `plot_cka`, for the values of the map.
        flags: Whether to mark flagged layers.
        colorbar: Whether to draw a colour bar.
        title: Title of the map. None names the reference.
        ceiling: As in `plot_trend`, for the lines below the map.

    Returns:
        The figure and the axes of the map.

    Raises:
        ValueError: There is no result, the last one has no paired layers, ``tolerance`` is not positive,
            ``vmin`` or ``vmax`` is a text other than "auto", or ``ceiling`` does not fit the results.
        KeyError: ``cmap`` is not the name of a colour map.
    """
    history = layer_history(results, _LEVEL, tolerance)
    look = _MapLook(cmap, *colour_range([history.values], vmin, vmax), flags, colorbar, title)
    if ax is not None:
        look = look._replace(max_label=text_lengths(ax)[0], max_titles=text_lengths(ax)[1:])
        _draw_map(ax, results, history, look, tolerance)
        fit_into_cell(ax, again=partial(_set_ticks, ax, results, history, look))
        return figure_of(ax), ax
    flagged = _flagged(results, history) if flags else set()
    rows, (columns, _) = _row_labels(history, flagged, MAX_LABEL), moment_labels(results)
    notes = mark_label(tolerance).split("\n") if tolerance and _marks(history) else []
    narrow = narrow_range_note([history.values], look.low, look.high)
    ax = new_axes(
        columns,
        rows,
        legend=[*rows, *notes, "bands: 95 % CI", *legend_lines(ceiling)],
        above=_NOTE_HEIGHT / 72 * text_scale("note") * (bool(notes) + len(narrow) + bool(flagged)),
    )
    trend = None
    if len(results) > 1:
        trend = axes_below(ax, height=_TREND_HEIGHT, gap=label_room(columns, axes_size(ax)[0]) + 0.1)
    _draw_map(ax, results, history, look, tolerance)
    if trend is not None:
        plot_trend(results, ax=trend, level=_LEVEL, tolerance=tolerance, ceiling=ceiling)
        trend.set_title("")
        trend.set_xlim(ax.get_xlim())
    return figure_of(ax), ax


class _MapLook(NamedTuple):
    """Options of the map; see `plot_drift`."""

    cmap: str | Colormap
    low: float
    high: float
    flags: bool
    colorbar: bool
    title: str | None
    max_label: int = MAX_LABEL
    max_titles: tuple[int, int] | None = None
    """Maximum number of characters of the title of the map and of the y axis. None: those that a new figure has room
    for."""


def _draw_map(
    ax: Axes, results: Sequence[CKAResult], history: LayerHistory, look: _MapLook, tolerance: float | None
) -> None:
    """Draw cells, colour bar, ticks and titles."""
    last = results[-1]
    _, unit = moment_labels(results)
    image = draw_cells(ax, history.values, look.cmap, look.low, look.high)
    if look.colorbar:
        colour_bar(ax, image, value_label(last), with_nan=bool(np.isnan(history.values).any()))
    flagged = _set_ticks(ax, results, history, look)
    wide, high = look.max_titles or title_lengths([ax])
    longest_note = (
        80 if look.max_titles is None else wide * 3 // 2
    )  # Letters of notes are smaller than those of titles.
    ax.set_xlabel(unit)
    ax.set_ylabel(axis_title(last.model_name, short_labels(history.names)[1], max_length=high))
    marks = _marks(history)
    draw_marks(ax, marks)
    line = _NOTE_HEIGHT * text_scale("note")
    above = 6 + line * bool(flagged)
    if marks and tolerance:
        explain_above_axes(ax, tolerance, _LEVEL, above - 2, longest_note)
        above += line
    for note in narrow_range_note([history.values], look.low, look.high, short=True):
        write_at_height(ax, fitting([note, note.split(":")[0]], longest_note), above - 2)
        above += line
    title = reference_title(last, wide) if look.title is None else plain(look.title)
    ax.set_title(title, fontsize=font_size("title"), pad=above)
    if flagged:
        _write_flag_note(ax, results, {history.names[place] for place in flagged}, longest_note - 2)


def _write_flag_note(ax: Axes, results: Sequence[CKAResult], layers: set[str], max_length: int) -> None:
    """Write above the map in which results the layers are flagged."""
    labels, unit = moment_labels(results)
    when = [label for label, result in zip(labels, results, strict=True) if any(map(result.flags_of, layers))]
    where = f"at {unit}{'s' if len(when) > 1 else ''} {shortened(when, 6)}"
    write_above_axes(ax, fitting([f"{where}: see the heatmap", where, "see the heatmap", "see flags"], max_length))


def _marks(history: LayerHistory) -> list[tuple[float, float]]:
    """Return the places of the marks: column and row of the cell from which on a layer stays within the tolerance."""
    return [(place, row) for row, place in enumerate(history.settled) if place is not None]


def _set_ticks(ax: Axes, results: Sequence[CKAResult], history: LayerHistory, look: _MapLook) -> set[int]:
    """Label both axes, and return the indices of the layers that are marked as flagged."""
    flagged = _flagged(results, history) if look.flags else set()
    set_ticks(ax.xaxis, moment_labels(results)[0])
    set_ticks(ax.yaxis, _row_labels(history, flagged, look.max_label), flagged, names=history.names)
    return flagged


def _row_labels(history: LayerHistory, flagged: set[int], max_label: int) -> list[str]:
    """Return the labels of the layers, with a sign before flagged ones."""
    return marked(short_labels(history.names, max_label)[0], flagged)


def _flagged(results: Sequence[CKAResult], history: LayerHistory) -> set[int]:
    """Return the indices of layers that are flagged in at least one result."""
    return {place for place, name in enumerate(history.names) if any(result.flags_of(name) for result in results)}
