"""`plot_measures`: several measures of similarity together, over depth or over epochs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import is_start
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.figures.ceiling_lines import CeilingLines
from lightning_cka.figures.labels import axis_title, elided, short_labels, similarity_title
from lightning_cka.figures.layer_history import LayerHistory, moment_labels
from lightning_cka.figures.layout import figure_of, new_axes
from lightning_cka.figures.legends import bands_text, draw_legend
from lightning_cka.figures.marker_sizes import marker_size
from lightning_cka.figures.measure_lines import (
    MeasureLine,
    ceiling_entry,
    ceilings_of_lines,
    label_lines,
    measure_lines,
    results_by_measure,
)
from lightning_cka.figures.own_cell import axes_size
from lightning_cka.figures.square_grid import side_by_side, square_grid
from lightning_cka.figures.ticks import set_ticks
from lightning_cka.figures.title_room import characters, title_lengths
from lightning_cka.figures.user_style import font_size, room_scale, text_scale
from lightning_cka.probe.bank import GramBank
from lightning_cka.runtime.spacing import spread_evenly

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_PANELS = 12
_ACROSS = 4
_SIDE = 1.75
"""Length in inches of a side of a panel."""
_MAX_PANEL_TITLE = 24
_CHARACTER = 0.065
"""Mean width in inches of a character of the legend."""
_VALUE_LABELS = [" " * 6] * 9
"""Stand-ins for the tick labels of the y axis, which give the axes their height and the room at the left."""

_STYLES = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#e69f00", "v"), ("#56b4e9", "P"))
"""Colours that people with colour blindness can tell apart (Okabe and Ito), and markers for prints without colours."""

_LOWEST = -0.3
"""Lowest value that bands make room for."""


def plot_measures(
    results: Mapping[str, CKAResult | Sequence[CKAResult]] | GramBank | str | Path,
    reference: GramBank | str | Path | None = None,
    layers: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    ceilings: Iterable[SeedCeiling] = (),
) -> tuple[Figure, list[Axes]]:
    """Draw several measures of paired layers together, with error bands: second opinions beside CKA.

    With one result for each measure, there is a line for each measure over depth. With several, of the epochs of a run,
    there is a panel for each layer, with a line for each measure over epochs. All measures are 1 for the same
    representation, and about 0 for unrelated ones. Where lines part, the measures disagree; see the guide on second
    opinions. A line has no band where the standard error is not known.

    Args:
        results: By name of the measure, a result, or results of one reference in order; as `compare_banks` and
            `CKAMonitor.results` have them. Or the bank of a model, or its file, which is compared with ``reference`` by
            CKA, mutual kNN, RSA and ridge CKA.
        reference: The bank of the reference, or its file; only with a bank.
        layers: Names of the layers to draw. None: all layers over depth, and over epochs all of up to 12 layers, or 12
            evenly spaced ones if there are more.
        level: Level of the confidence intervals that the bands show, in (0, 1).
        ceilings: What trainings reach that differ in their seed alone, from `lightning_cka.seed_ceiling`, by one or
            several measures: a dashed line with a band for each measure that has one.

    Returns:
        The figure, and its axes: one for depth, or one for each layer.

    Raises:
        ValueError: There is no result, results have no or different paired layers or lack one of ``layers``,
            there is a bank without a reference or results with one, or ``level`` is out of range.
        FileNotFoundError: The file of a bank does not exist.
    """
    lines = measure_lines(results_by_measure(results, reference), level)
    rows = _chosen_rows(lines[0].history.names, layers)
    bands = bands_text([line.history for line in lines], level)
    if max(len(line.results) for line in lines) > 1:
        rows = rows or spread_evenly(range(len(lines[0].history.names)), _MAX_PANELS)
        return _plot_epochs(lines, rows, bands, ceilings_of_lines(lines, rows, ceilings, level))
    rows = rows or list(range(len(lines[0].history.names)))
    return _plot_depth(lines, rows, bands, ceilings_of_lines(lines, rows, ceilings, level))


def _chosen_rows(names: Sequence[str], layers: Sequence[str] | None) -> list[int]:
    """Return the indices of the chosen layers; empty if none are named.

    Raises:
        ValueError: One of ``layers`` is not among the names.
    """
    if missing := [name for name in layers or () if name not in names]:
        raise ValueError(f"no values of paired layers for {missing}; expected layers among {list(names)}")
    return [names.index(name) for name in layers or ()]


def _plot_depth(
    lines: Sequence[MeasureLine], rows: Sequence[int], bands: str, tops: Sequence[CeilingLines | None]
) -> tuple[Figure, list[Axes]]:
    """Draw values over depth in one panel; ``bands`` says what the bands are."""
    result = lines[0].results[-1]
    labels, prefix = short_labels([lines[0].history.names[row] for row in rows])
    notes = ceiling_entry(tops)
    ax = new_axes(labels, _VALUE_LABELS, legend=[bands, *label_lines(lines, notes)])
    for line, top, style in zip(lines, tops, _styles(len(lines)), strict=True):
        history = line.history
        if top is not None:
            top.draw_over_depth(ax, style[0])
        _draw(ax, np.arange(len(rows)), line.label, [part[rows, -1] for part in _parts(history)], style, 4.0)
    set_ticks(ax.xaxis, labels, names=[lines[0].history.names[row] for row in rows])
    ax.tick_params(axis="y", labelsize=font_size("tick"))
    wide, _ = title_lengths([ax])
    ax.set_xlabel(axis_title(result.model_name, prefix, max_length=wide))
    ax.set_ylabel("similarity")
    ax.set_title(_title(result, wide, result.epoch), fontsize=font_size("title"))
    _finish([ax])
    entries = [*zip(*ax.get_legend_handles_labels(), strict=True), *notes]
    draw_legend(ax, [handle for handle, _ in entries], [text for _, text in entries], [bands] if bands else [])
    return figure_of(ax), [ax]


def _plot_epochs(
    lines: Sequence[MeasureLine], rows: Sequence[int], bands: str, tops: Sequence[CeilingLines | None]
) -> tuple[Figure, list[Axes]]:
    """Draw values over epochs in a panel for each layer; ``bands`` says what the bands are."""
    names = lines[0].history.names
    result = lines[0].results[-1]
    labels, prefix = short_labels([names[row] for row in rows])
    notes = ceiling_entry(tops)
    right = 0.5 * room_scale() + _CHARACTER * text_scale("tick") * max(map(len, label_lines(lines, notes)))
    grid = square_grid(len(rows), _ACROSS, side=_SIDE, above=0.45, below=0.1, right=right, shared=True)
    moments = [_places(line.results) for line in lines]
    for panel, (ax, row, label) in enumerate(zip(grid, rows, labels, strict=True)):
        for line, top, (places, _), style in zip(lines, tops, moments, _styles(len(lines)), strict=True):
            if top is not None:
                top.draw_across(ax, panel, (float(places.min()), float(places.max())), style[0])
            _draw(ax, places, line.label, [part[row] for part in _parts(line.history)], style, 2.5)
        ax.set_title(elided(label, _MAX_PANEL_TITLE), fontsize=font_size("tick"))
        ax.tick_params(labelsize=font_size("note"))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    _finish(grid)
    across = side_by_side(grid)
    _label_outer(grid, across, moments[0][1])
    figure = figure_of(grid[0])
    width, height = figure.get_size_inches()
    left = grid[0].get_position().x0
    which = "" if len(rows) == len(names) else f"{len(rows)} of {len(names)} layers"
    longest = characters(width * (1 - left))
    some = "".join(f", {text}" for text in (which, bands) if text)
    subtitle = axis_title(result.model_name, prefix, max_length=longest - len(some)) + some
    figure.text(left, 1 - 0.12 / height, _title(result, longest), fontsize=font_size("title"), va="top")
    figure.text(left, 1 - 0.32 / height, subtitle, fontsize=font_size("tick"), va="top", alpha=0.7)
    last = grid[across - 1].get_position()
    entries = [*zip(*grid[0].get_legend_handles_labels(), strict=True), *notes]
    figure.legend(
        [handle for handle, _ in entries],
        [text for _, text in entries],
        loc="upper left",
        bbox_to_anchor=(last.x1 + 0.05 / width, last.y1),
        borderaxespad=0.0,
        fontsize=font_size("tick"),
        frameon=False,
    )
    return figure, grid


def _label_outer(grid: Sequence[Axes], across: int, unit: str) -> None:
    """Label the axes at the left and at the bottom of the grid; all panels have the same scales."""
    for place, ax in enumerate(grid):
        if place % across:
            ax.tick_params(labelleft=False)
        else:
            ax.set_ylabel("similarity", fontsize=font_size("tick"))
        if place + across >= len(grid):
            ax.set_xlabel(unit, fontsize=font_size("tick"))
        else:
            ax.tick_params(labelbottom=False)


def _finish(grid: Sequence[Axes]) -> None:
    """Give all panels the same range of values, which includes 1, and a line at 0, the value of unrelated layers."""
    drawn = [np.asarray(path.vertices)[:, 1] for ax in grid for band in ax.collections for path in band.get_paths()]
    drawn += [np.asarray(line.get_ydata(), float) for ax in grid for line in ax.get_lines()]
    lowest = min((float(np.nanmin(each)) for each in drawn if not np.isnan(each).all()), default=0.0)
    bottom = max(lowest, _LOWEST)
    room = 0.03 * (1 - min(bottom, 0.97))
    for ax in grid:
        ax.set_ylim(bottom - room, 1 + room)
        ax.spines[["top", "right"]].set_visible(False)
        if bottom - room < 0:
            ax.axhline(0, color="0.6", linewidth=0.7, zorder=0)


def _parts(history: LayerHistory) -> tuple[NDArray[np.float64], ...]:
    return history.values, history.low, history.high


def _draw(
    ax: Axes,
    places: NDArray[np.float64] | NDArray[np.int64],
    label: str,
    parts: Sequence[NDArray[np.float64]],
    style: tuple[str, str],
    size: float,
) -> None:
    """Draw the line of one measure: values, and a band between lower and upper bounds."""
    colour, marker = style
    values, low, high = parts
    ax.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
    size = marker_size(axes_size(ax)[0], len(values), size)
    ax.plot(places, values, color=colour, label=label, linewidth=1.3, marker=marker, markersize=size)


def _styles(count: int) -> list[tuple[str, str]]:
    return [_STYLES[place % len(_STYLES)] for place in range(count)]


def _places(results: Sequence[CKAResult]) -> tuple[NDArray[np.float64], str]:
    """Return where the results are along the x axis, and the unit: epochs, steps, or numbers of the results."""
    labels, unit = moment_labels(results)
    if any(map(is_start, results)):  # It is before epoch 0.
        labels, unit = [str(result.step) for result in results], "step"
    if all(label.isdigit() for label in labels):
        return np.array(labels, dtype=float), unit
    return np.arange(len(labels), dtype=float), "result"


def _title(result: CKAResult, max_length: int, epoch: int | None = None) -> str:
    return similarity_title("similarity", result, max_length, "" if epoch is None else f", epoch {epoch}")
