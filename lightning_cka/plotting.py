"""Figures of CKA results."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps

from lightning_cka.canvas import (
    FLAG,
    FLAG_COLOUR,
    Array,
    axes_below,
    axis_title,
    draw_cells,
    elided,
    figure_of,
    label_room,
    new_axes,
    set_ticks,
    short_labels,
    write_cells,
)
from lightning_cka.diagnostics import flag_summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_cka.result import CKAResult

_MAX_LINES = 8
"""Of a trend: more cannot be told apart."""
_NOTE_LINE = 0.14
"""Height in inches of a line of the legend of flags."""


def plot_cka(
    result: CKAResult,
    ax: Axes | None = None,
    *,
    add_text: bool = False,
    cmap: str = "magma",
    vmin: float = 0.0,
    vmax: float = 1.0,
) -> tuple[Figure, Axes]:
    """Heatmap of a result: the model's layers upwards, the reference's to the right.

    Layers whose values are not to be trusted have a red label with a warning sign, and a line below says why.

    Args:
        result: what to draw. ``nan`` cells are grey.
        ax: where; None: a new figure.
        add_text: write the values into the cells, with their standard errors where these are known.
        cmap: a matplotlib colour map.
        vmin: the value of its lower end; smaller values have the same colour.
        vmax: the value of its upper end.

    Returns:
        The figure and the axes. The figure is not known to pyplot: save it with ``figure.savefig``.
    """
    rows, row_prefix = short_labels(result.layers)
    columns, column_prefix = short_labels(result.reference_layers)
    flagged_rows, flagged_columns = _flagged(result)
    rows = _marked(rows, flagged_rows)
    columns = _marked(columns, flagged_columns)
    notes = [] if result.diagnostics is None else flag_summary(result.flags, result.diagnostics.sample_kind)
    notes = [f"{FLAG} {note}" for note in notes]
    if ax is None:
        # Nearly as wide as the figure will be; a line more or less does no harm.
        wrapped = _wrapped(notes, new_axes(columns, rows))
        ax = new_axes(columns, rows, below=_NOTE_LINE * (len(wrapped) + 0.5) if wrapped else 0.0)
    else:
        wrapped = _wrapped(notes, ax)
    values = result.matrix.numpy()
    image = draw_cells(ax, values, cmap, vmin, vmax, _value_label(result))
    set_ticks(ax.xaxis, columns, flagged_columns)
    set_ticks(ax.yaxis, rows, flagged_rows)
    ax.set_xlabel(axis_title(result.reference_name, column_prefix))
    ax.set_ylabel(axis_title(result.model_name, row_prefix))
    where = (f"{word} {value}" for word, value in (("epoch", result.epoch), ("step", result.step)) if value is not None)
    ax.set_title(", ".join(where), fontsize=10)
    if add_text:
        errors = result.standard_error
        known = errors is not None and not errors.isnan().all()
        write_cells(ax, image, values, errors.numpy() if errors is not None and known else None)
    if wrapped:
        _write_notes(ax, wrapped, label_room(columns))
    return figure_of(ax), ax


def plot_drift(results: Sequence[CKAResult], ax: Axes | None = None, *, cmap: str = "magma") -> tuple[Figure, Axes]:
    """Map of each layer's CKA with the reference's layer of the same name, over the results.

    Args:
        results: of one reference, in order; at least one, with same-named layers.
        ax: where; None: a new figure, with `plot_trend` of the same results under the map.
        cmap: a matplotlib colour map, from 0 to 1.

    Returns:
        The figure and the axes of the map.

    Raises:
        ValueError: there is no result, or no same-named layer.
    """
    names, values, _ = _history(results)
    rows, prefix = short_labels(names)
    columns, axis = _places(results)
    own = ax is None
    if ax is None:
        ax = new_axes(columns, rows)
    draw_cells(ax, values, cmap, 0.0, 1.0, _value_label(results[-1]))
    set_ticks(ax.xaxis, columns)
    set_ticks(ax.yaxis, rows)
    ax.set_xlabel(axis)
    ax.set_ylabel(axis_title(results[-1].model_name, prefix))
    ax.set_title(f"CKA with {elided(results[-1].reference_name)}", fontsize=10)
    if own and len(results) > 1:
        trend = axes_below(ax, height=1.8, gap=label_room(columns) + 0.1)
        plot_trend(results, ax=trend)
        trend.set_title("")
        trend.set_xlim(ax.get_xlim())
    return figure_of(ax), ax


def plot_trend(
    results: Sequence[CKAResult], layers: Sequence[str] | None = None, ax: Axes | None = None, *, level: float = 0.95
) -> tuple[Figure, Axes]:
    """Lines of each layer's CKA with the reference's layer of the same name, over the results, with error bands.

    Args:
        results: of one reference, in order; at least one, with same-named layers.
        layers: which; None: of many, eight that are evenly spaced.
        ax: where; None: a new figure.
        level: of the confidence intervals that the bands are.

    Returns:
        The figure and the axes.

    Raises:
        ValueError: there is no result, no same-named layer, or not the one that is asked for.
    """
    names, values, bands = _history(results, level)
    if layers is None:
        count = min(len(names), _MAX_LINES)
        chosen = [round(i * (len(names) - 1) / max(1, count - 1)) for i in range(count)]
    else:
        if missing := [name for name in layers if name not in names]:
            raise ValueError(f"no CKA with a layer of the same name for {missing}; there is one for {names}")
        chosen = [names.index(name) for name in layers]
    labels, _ = short_labels(names)
    columns, axis = _places(results)
    if ax is None:
        ax = new_axes(columns, [" " * 6] * 8)
    for order, row in enumerate(chosen):
        colour = colormaps["viridis"](0.9 * order / max(1, len(chosen) - 1))
        places = np.arange(len(columns))
        ax.fill_between(places, bands[0][row], bands[1][row], color=colour, alpha=0.25, linewidth=0)
        ax.plot(places, values[row], color=colour, label=labels[row], linewidth=1.4, marker=".", markersize=4)
    set_ticks(ax.xaxis, columns)
    ax.tick_params(axis="y", labelsize=8)
    ax.set_xlabel(axis)
    ax.set_ylabel(_value_label(results[-1]))
    ax.set_title(f"CKA with {elided(results[-1].reference_name)}", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    handles, texts = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], texts[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
    return figure_of(ax), ax


def _flagged(result: CKAResult) -> tuple[set[int], set[int]]:
    """Rows and columns whose layers are flagged."""
    rows = {result.layers.index(flag.layer) for flag in result.flags if not flag.of_reference}
    columns = {result.reference_layers.index(flag.layer) for flag in result.flags if flag.of_reference}
    return rows, rows if result.within else columns


def _marked(labels: Sequence[str], flagged: set[int]) -> list[str]:
    return [f"{FLAG} {label}" if place in flagged else label for place, label in enumerate(labels)]


def _wrapped(notes: Sequence[str], ax: Axes) -> list[str]:
    width = figure_of(ax).get_figwidth()
    return [line for note in notes for line in textwrap.wrap(note, int(width / 0.068), subsequent_indent="    ")]


def _write_notes(ax: Axes, lines: Sequence[str], room: float) -> None:
    """Lines at the left edge of the figure, under the labels and the title of the x axis."""
    figure, box = figure_of(ax), ax.get_position()
    inches = box.height * figure.get_figheight()
    left = -(box.x0 * figure.get_figwidth() - 0.1) / (box.width * figure.get_figwidth())
    ax.text(
        left,
        -(room - 0.05) / inches,
        "\n".join(lines),
        transform=ax.transAxes,
        va="top",
        fontsize=7,
        color=FLAG_COLOUR,
        linespacing=1.25,
    )


def _value_label(result: CKAResult) -> str:
    """CKA, with the kernel and the estimator where they are not the usual ones."""
    kinds = [*([] if result.kernel == "linear" else [result.kernel]), *([] if result.unbiased else ["biased"])]
    return f"CKA ({', '.join(kinds)})" if kinds else "CKA"


def _history(results: Sequence[CKAResult], level: float = 0.95) -> tuple[list[str], Array, tuple[Array, Array]]:
    """Same-named layers, their CKA ``(layers, results)``, and the bounds of its confidence intervals."""
    if not results or not (pairs := results[-1].same_named_pairs()):
        raise ValueError("this needs at least one result with layers of the same name on both sides")
    names = list(pairs)
    values, low, high = (np.full((len(names), len(results)), np.nan) for _ in range(3))
    for column, result in enumerate(results):
        known = result.standard_error is not None and result.effective_batches is not None
        bounds = result.confidence_interval(level) if known else None
        for row, cell in enumerate(map(result.same_named_pairs().get, names)):
            if cell is not None:
                values[row, column] = result.matrix[cell]
                if bounds is not None:
                    low[row, column], high[row, column] = (bound[cell] for bound in bounds)
    return names, values, (low, high)


def _places(results: Sequence[CKAResult]) -> tuple[list[str], str]:
    """Labels of the results along an axis, and what they are: epochs, or steps where an epoch has several."""
    epochs = [result.epoch for result in results]
    by_step = len(set(epochs)) < len(epochs)
    return [str(result.step if by_step else result.epoch) for result in results], "step" if by_step else "epoch"
