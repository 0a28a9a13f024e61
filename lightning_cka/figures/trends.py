"""Lines of CKA between paired layers, over epochs or over depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_cka.compare.result import CKAResult
from lightning_cka.decisions.settled import DEFAULT_TOLERANCE
from lightning_cka.figures.backgrounds import is_dark
from lightning_cka.figures.ceiling_lines import CeilingLines
from lightning_cka.figures.depth_texts import depth_title, line_labels, moments_of_one_reference
from lightning_cka.figures.labels import (
    MAX_LABEL,
    axis_title,
    reference_title,
    shared_value_label,
    short_labels,
    value_label,
)
from lightning_cka.figures.layer_history import LayerHistory, check_same_layers, layer_history, moment_labels
from lightning_cka.figures.layout import figure_of, new_axes
from lightning_cka.figures.legends import bands_text, draw_legend, legend_label_length, some_text
from lightning_cka.figures.line_colours import Colour, chosen_lines, line_colours
from lightning_cka.figures.marker_sizes import marker_size
from lightning_cka.figures.own_cell import axes_size, fit_into_cell, text_lengths
from lightning_cka.figures.settled_marks import draw_marks, legend_mark, mark_label
from lightning_cka.figures.ticks import set_ticks
from lightning_cka.figures.title_room import title_lengths
from lightning_cka.figures.user_style import font_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_cka.decisions.ceiling import SeedCeiling


_OPINION = "second opinion that differs\n(mutual kNN or ridge CKA)"
"""Label of the thin lines."""

_MAX_NAMED = 12
"""Maximum number of lines over depth that all are in the legend."""

_VALUE_LABELS = [" " * 6] * 8
"""Stand-ins for the tick labels of the y axis, which give the axes their height and the room at the left."""


def plot_trend(
    results: Sequence[CKAResult],
    layers: Sequence[str] | None = None,
    ax: Axes | None = None,
    *,
    level: float = 0.95,
    tolerance: float | None = DEFAULT_TOLERANCE,
    ceiling: SeedCeiling | None = None,
) -> tuple[Figure, Axes]:
    """Draw CKA of paired layers over epochs: one line per layer of the model, with error bands.

    A line has no band where the standard error is not known. A diamond marks the result from which on a layer stays
    within the tolerance of its last value, with confidence; see `plot_drift`. A thin dashed line is the second opinion,
    where a flag says that it differs from CKA ("disagreement").

    Args:
        results: Results of one reference, in order; at least one.
        layers: Names of the layers to draw. None takes all layers, or 8 evenly spaced ones if there are more, and up to
            4 with a second opinion.
        ax: Axes to draw into. None makes a new figure.
        level: Level of the confidence intervals that the bands show and the diamonds use, in (0, 1).
        tolerance: Change of CKA that does not matter, greater than 0; 0.01 by default. None draws no diamonds.
        ceiling: What trainings reach that differ in their seed alone, from `lightning_cka.seed_ceiling`: a dashed line
            for each layer, with a band. None draws none.

    Returns:
        The figure and its axes.

    Raises:
        ValueError: There is no result, the last one has no paired layers or lacks one of ``layers``,
            ``level`` or ``tolerance`` is out of range, or ``ceiling`` does not fit the results.
    """
    history = layer_history(results, level, tolerance)
    rows = _chosen_rows(history, layers)
    own = ax is not None and ax.get_subplotspec() is not None  # The trend of `plot_drift` has the width of its map.
    longest = legend_label_length(ax) if own and ax is not None else MAX_LABEL
    labels, _ = short_labels(history.names, min(MAX_LABEL, longest))
    columns, unit = moment_labels(results)
    heading = _heading(history, level, some_text(rows, labels, "layers"))
    top = CeilingLines.of(ceiling, results[-1], history.names, level)
    notes = [] if top is None else [top.legend_entry]
    notes += _mark_entry(history, rows, tolerance, own)
    if ax is None:
        ax = new_axes(columns, _VALUE_LABELS, legend=[*(labels[row] for row in rows), *_lines(notes), *heading])
    colours = line_colours(len(rows), on_dark=is_dark(ax))
    for colour, row in zip(colours, rows, strict=True):
        _draw_line(ax, labels[row], history.values[row], (history.low[row], history.high[row]), colour)
        if (place := history.settled[row]) is not None:
            draw_marks(ax, [(place, history.values[row, place])], colour)
        if top is not None:
            top.draw_across(ax, row, (-0.4, len(columns) - 0.6), colour)
    _draw_opinions(ax, history.opinions[rows], colours)
    title = reference_title(results[-1], _title_length(ax, own))
    _finish(ax, unit, value_label(results[-1]), title, notes, heading)
    _label(ax, columns, own)
    return figure_of(ax), ax


def plot_layer_trend(
    results: CKAResult | Sequence[CKAResult],
    labels: Sequence[str] | None = None,
    ax: Axes | None = None,
    *,
    level: float = 0.95,
    ceiling: SeedCeiling | None = None,
) -> tuple[Figure, Axes]:
    """Draw CKA of paired layers over depth: one line per result, with error bands.

    A line has no band where the standard error is not known. Of more than 12 lines, 8 have bands and are in the legend.

    Args:
        results: One result, or several with the same paired layers.
        labels: One label per line. None takes the name of the reference, and the epoch if it is known.
        ax: Axes to draw into. None makes a new figure.
        level: Level of the confidence intervals that the bands show, in (0, 1).
        ceiling: As in `plot_trend`: one dashed line.

    Returns:
        The figure and its axes.

    Raises:
        ValueError: There is no result, results have no or different paired layers, the number of labels is
            wrong, ``level`` is out of range, or ``ceiling`` does not fit the results.
    """
    results = [results] if isinstance(results, CKAResult) else results
    history = layer_history(results, level)
    check_same_layers(results, history.names)
    own = ax is not None
    if labels is None:
        labels = moments_of_one_reference(results)
    lines = line_labels(results, labels, MAX_LABEL if ax is None else legend_label_length(ax))
    columns, prefix = short_labels(history.names, MAX_LABEL if ax is None else text_lengths(ax)[0])
    named = range(len(lines)) if len(lines) <= _MAX_NAMED else chosen_lines(len(lines))
    heading = _heading(history, level, some_text(named, lines, "lines"))
    top = CeilingLines.of(ceiling, results[-1], history.names, level)
    notes = [] if top is None else [top.legend_entry]
    if ax is None:
        ax = new_axes(columns, _VALUE_LABELS, legend=[*lines, *_lines(notes), *heading])
    if top is not None:
        top.draw_over_depth(ax)
    colours = line_colours(len(lines), on_dark=is_dark(ax))
    for place, (colour, line) in enumerate(zip(colours, lines, strict=True)):
        band = (history.low[:, place], history.high[:, place]) if place in named else None
        _draw_line(ax, line if place in named else f"_{line}", history.values[:, place], band, colour)
    value, wide = shared_value_label(results), _title_length(ax, own)
    model = axis_title(results[-1].model_name, prefix, max_length=wide)
    _finish(ax, model, value, depth_title(results, wide), notes, heading)
    _label(ax, columns, own, history.names)
    return figure_of(ax), ax


def _mark_entry(history: LayerHistory, rows: Sequence[int], tolerance: float | None, short: bool) -> list[Any]:
    """Return what the legend says of the marks of settled layers, if there are some."""
    is_marked = tolerance is not None and any(history.settled[row] is not None for row in rows)
    return [(legend_mark(), mark_label(tolerance, short=short))] if is_marked and tolerance else []


def _title_length(ax: Axes, own: bool) -> int:
    """Return how many characters fit into the title; ``own``: in the user's part of a figure."""
    return text_lengths(ax)[1] if own else title_lengths([ax])[0]


def _label(ax: Axes, columns: Sequence[str], own: bool, names: Sequence[str] | None = None) -> None:
    """Draw the ticks of the x axis, and keep the user's own axes within their part of the figure."""
    set_ticks(ax.xaxis, columns, names=names)
    if own:
        ax.title.set(x=0.0, ha="left")  # The legend at the right is below the title.
        fit_into_cell(ax, again=lambda: set_ticks(ax.xaxis, columns, names=names))


def _heading(history: LayerHistory, level: float, some: str = "") -> list[str]:
    """Return what the legend says of all lines: which layers are drawn, and the level of the bands."""
    return [text for text in (some, bands_text([history], level)) if text]


def _chosen_rows(history: LayerHistory, layers: Sequence[str] | None) -> list[int]:
    """Return the indices of the layers to draw.

    Raises:
        ValueError: One of ``layers`` is not among the names.
    """
    names = history.names
    if layers is None:
        chosen = chosen_lines(len(names))
        differing = np.flatnonzero(~np.isnan(history.opinions).all(1)).tolist()
        return sorted({*chosen, *[row for row in differing if row not in chosen][:4]})
    if missing := [name for name in layers if name not in names]:
        raise ValueError(f"no values of paired layers for {missing}; expected layers among {list(names)}")
    return [names.index(name) for name in layers]


def _draw_line(
    ax: Axes,
    label: str,
    values: NDArray[np.float64],
    band: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    colour: Colour,
) -> None:
    """Draw one line, with a band between the lower and the upper bounds."""
    places = np.arange(len(values))
    if band is not None:
        ax.fill_between(places, *band, color=colour, alpha=0.25, linewidth=0)
    size = marker_size(axes_size(ax)[0], len(values), 4.0)
    ax.plot(places, values, color=colour, label=label, linewidth=1.4, marker=".", markersize=size)


def _draw_opinions(ax: Axes, opinions: NDArray[np.float64], colours: Sequence[Colour]) -> None:
    """Draw a thin line for each layer ``(L, results)`` that has a second opinion, and a label for all of them."""
    label = _OPINION
    for values, colour in zip(opinions, colours, strict=True):
        if not np.isnan(values).all():
            ax.plot(values, color=colour, linewidth=0.8, linestyle="--", marker="x", markersize=3, label=label)
            label = ""


def _lines(notes: Sequence[tuple[Any, str]]) -> list[str]:
    return [line for _, text in notes for line in text.split("\n")]


def _finish(
    ax: Axes,
    x_title: str,
    y_title: str,
    title: str,
    notes: Sequence[tuple[Any, str]],
    heading: Sequence[str],
) -> None:
    """Draw titles, and a legend in the order of the lines from top to bottom.

    Entries of ``notes`` are the last ones of the legend. The lines of ``heading`` are above it.
    """
    ax.tick_params(axis="y", labelsize=font_size("tick"))
    ax.set_xlabel(x_title)
    ax.set_ylabel(y_title)
    ax.set_title(title, fontsize=font_size("title"))
    ax.spines[["top", "right"]].set_visible(False)
    entries = [*list(zip(*ax.get_legend_handles_labels(), strict=True))[::-1], *notes]
    draw_legend(ax, [handle for handle, _ in entries], [text for _, text in entries], heading)
