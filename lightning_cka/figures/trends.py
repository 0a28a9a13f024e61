"""CKA of layers with their namesakes, over epochs and over depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps

from lightning_cka.figures.canvas import (
    FLAG,
    FLAG_COLOUR,
    Array,
    axes_below,
    axis_title,
    colour_bar,
    draw_cells,
    elided,
    figure_of,
    label_room,
    new_axes,
    plain,
    set_ticks,
    short_labels,
)
from lightning_cka.figures.heatmap import marked, value_label
from lightning_cka.runtime.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_cka.compare.result import CKAResult


_MAX_LINES = 8
"""Of a trend: more cannot be told apart."""


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
    flagged = {place for place, name in enumerate(names) if any(f.layer == name for r in results for f in r.flags)}
    rows = marked(rows, flagged)
    own = ax is None
    if ax is None:
        ax = new_axes(columns, rows, legend=rows)
    image = draw_cells(ax, values, cmap, 0.0, 1.0)
    colour_bar(ax, image, value_label(results[-1]), with_nan=bool(np.isnan(values).any()))
    set_ticks(ax.xaxis, columns)
    set_ticks(ax.yaxis, rows, flagged)
    ax.set_xlabel(axis)
    ax.set_ylabel(axis_title(results[-1].model_name, prefix))
    ax.set_title(f"CKA with {plain(elided(results[-1].reference_name))}", fontsize=10, pad=17 if flagged else None)
    if flagged:
        _write_when(ax, results, {names[place] for place in flagged}, columns)
    if own and len(results) > 1:
        trend = axes_below(ax, height=1.8, gap=label_room(columns) + 0.1)
        plot_trend(results, ax=trend)
        trend.set_title("")
        trend.set_xlim(ax.get_xlim())
    return figure_of(ax), ax


def _write_when(ax: Axes, results: Sequence[CKAResult], layers: set[str], columns: Sequence[str]) -> None:
    """A line under the title that says at which of the results layers are flagged."""
    when = [
        label
        for label, result in zip(columns, results, strict=True)
        if any(flag.layer in layers for flag in result.flags)
    ]
    text = f"{FLAG} at {shortened(when, 6)}: see the heatmap"
    ax.text(0.5, 1.02, text, transform=ax.transAxes, ha="center", va="bottom", fontsize=7, color=FLAG_COLOUR)


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
        ax = new_axes(columns, [" " * 6] * 8, legend=[labels[row] for row in chosen])
    for order, row in enumerate(chosen):
        _draw_line(ax, labels[row], values[row], (bands[0][row], bands[1][row]), order / max(1, len(chosen) - 1))
    _finish_lines(ax, columns, axis, value_label(results[-1]), f"CKA with {plain(elided(results[-1].reference_name))}")
    return figure_of(ax), ax


def plot_layer_trend(
    results: Sequence[CKAResult], labels: Sequence[str] | None = None, ax: Axes | None = None, *, level: float = 0.95
) -> tuple[Figure, Axes]:
    """The diagonal by depth: each layer's CKA with its namesake, a line with an error band for each comparison.

    Args:
        results: at least one, all with the same same-named layers.
        labels: of the lines; None: the reference's name, and the epoch if there is one.
        ax: where; None: a new figure.
        level: of the confidence intervals that the bands are.

    Returns:
        The figure and the axes.

    Raises:
        ValueError: there is no result, no same-named layer, other ones in some results, or not a label for each.
    """
    names, values, bands = _history(results, level)
    if other := [result for result in results if list(result.same_named_pairs()) != names]:
        raise ValueError(f"the results must have the same layers, but one has {list(other[0].same_named_pairs())}")
    if labels is None:
        names_of = [plain(r.reference_name) for r in results]
        labels = [n if r.epoch is None else f"{n}, epoch {r.epoch}" for n, r in zip(names_of, results, strict=True)]
    if len(labels) != len(results):
        raise ValueError(f"there are {len(results)} results, but {len(labels)} labels")
    columns, prefix = short_labels(names)
    labels = [elided(label) for label in labels]
    if ax is None:
        ax = new_axes(columns, [" " * 6] * 8, legend=labels)
    for order, label in enumerate(labels):
        band = (bands[0][:, order], bands[1][:, order])
        _draw_line(ax, label, values[:, order], band, order / max(1, len(results) - 1))
    _finish_lines(
        ax,
        columns,
        axis_title(results[-1].model_name, prefix),
        value_label(results[-1]),
        "CKA of layers with their namesakes",
    )
    return figure_of(ax), ax


def _draw_line(ax: Axes, label: str, values: Array, band: tuple[Array, Array], shade: float) -> None:
    colour = colormaps["viridis"](0.9 * shade)
    places = np.arange(len(values))
    ax.fill_between(places, *band, color=colour, alpha=0.25, linewidth=0)
    ax.plot(places, values, color=colour, label=label, linewidth=1.4, marker=".", markersize=4)


def _finish_lines(ax: Axes, columns: Sequence[str], axis: str, value: str, title: str) -> None:
    set_ticks(ax.xaxis, columns)
    ax.tick_params(axis="y", labelsize=8)
    ax.set_xlabel(axis)
    ax.set_ylabel(value)
    ax.set_title(title, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    handles, texts = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], texts[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)


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
