"""`plot_ranks`: the effective rank and the effective dimension of layers over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from lightning_cka.compare.bank_series import STEP_LABEL
from lightning_cka.decisions.rank_history import RankHistory
from lightning_cka.figures.backgrounds import is_dark
from lightning_cka.figures.flag_notes import FLAG_COLOUR
from lightning_cka.figures.labels import MAX_LABEL, elided, fitting, plain, short_labels
from lightning_cka.figures.layout import axes_below, figure_of, new_axes
from lightning_cka.figures.legends import draw_legend
from lightning_cka.figures.line_colours import chosen_lines, line_colours
from lightning_cka.figures.ticks import set_ticks
from lightning_cka.figures.title_room import title_lengths
from lightning_cka.figures.user_style import font_size
from lightning_cka.runtime.spacing import spread_evenly
from lightning_cka.runtime.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MORE_LINES = 4
"""Number of layers that have lost rank and are drawn besides the evenly spaced ones."""

_HEIGHT, _GAP = 1.8, 0.25
"""Height of the panel of dimensions, and its distance from that of ranks, in inches."""

_MARK: dict[str, Any] = {
    "linestyle": "none",
    "marker": "X",
    "color": FLAG_COLOUR,
    "markersize": 7,
    "markeredgecolor": "white",
    "clip_on": False,
}

_VALUE_LABELS = [" " * 6] * 8
"""Stand-ins for the tick labels of the y axis, which give the axes their height."""


def plot_ranks(
    history: RankHistory,
    layers: Sequence[str] | None = None,
    *,
    rank_loss: float | None = 0.5,
    level: float = 0.95,
    title: str | None = None,
) -> tuple[Figure, list[Axes]]:
    """Draw the effective rank of layers over epochs with error bands, and below it the effective dimension.

    A red cross marks the first moment at which a layer has lost more than ``rank_loss`` of its largest rank so far. A
    rank is at most n - 1 for batches of n samples, as the title of the axis says. The dimension does not depend on n.

    Args:
        history: What `lightning_cka.rank_history` returned.
        layers: Names of the layers to draw. None: all, or 8 evenly spaced ones if there are more, and up to 4 that have
            lost rank.
        rank_loss: Part of the largest rank so far above which a loss is marked, at least 0. None: none is.
        level: Level of the confidence intervals that the bands show, in (0, 1).
        title: Title of the figure. None names the model.

    Returns:
        The figure, and the axes of ranks and of dimensions.

    Raises:
        ValueError: A layer is unknown, ``rank_loss`` is negative, or ``level`` is not in (0, 1).
    """
    falls = {fall.layer: fall.place for fall in ([] if rank_loss is None else history.falls(rank_loss, level))}
    rows = _chosen_rows(history, layers, falls)
    names = [history.layers[row] for row in rows]
    labels, prefix = short_labels(names, MAX_LABEL)
    marks = [
        (falls[name], float(history.rank[row, falls[name]]))
        for row, name in zip(rows, names, strict=True)
        if name in falls
    ]
    heading = _heading(history, rows, prefix, level)
    note = [f"lost > {100 * rank_loss:g} %"] if marks and rank_loss is not None else []
    moments, unit = _moments(history.moments)
    ax = new_axes(moments, _VALUE_LABELS, legend=[*labels, *heading, *note])
    below = axes_below(ax, height=_HEIGHT, gap=_GAP)
    _draw_lines(ax, below, history, dict(zip(rows, labels, strict=True)), level)
    for place, value in marks:
        ax.plot([place], [value], label="_lost", zorder=5, **_MARK)
    tall = title_lengths([ax, below])[1]
    _finish(ax, moments, ["effective rank", "rank"], f" (≤ {history.num_samples - 1})", tall)
    _finish(below, moments, ["effective dimension", "dimension"], "", tall)
    ax.tick_params(labelbottom=False)
    below.set_xlabel(unit)
    text = elided(history.model_name, title_lengths([ax])[0]) if title is None else title
    ax.set_title(plain(text), fontsize=font_size("title"))
    handles, texts = ax.get_legend_handles_labels()
    draw_legend(ax, [*handles, *(Line2D([], [], **_MARK) for _ in note)], [*texts, *note], heading)
    return figure_of(ax), [ax, below]


def _heading(history: RankHistory, rows: Sequence[int], prefix: str, level: float) -> list[str]:
    """Return what the legend says of all lines: which layers are drawn, and the level of the bands."""
    some = [f"{len(rows)} of {len(history.layers)} layers"] if len(rows) < len(history.layers) else []
    names = [f"{elided(prefix, MAX_LABEL)}.*"] if prefix else []
    bands = [f"bands: {100 * level:g} % CI"] if history.bounds(level)[0].isfinite().any() else []
    return [*some, *names, *bands]


def _draw_lines(ax: Axes, below: Axes, history: RankHistory, labels: Mapping[int, str], level: float) -> None:
    """Draw the ranks and the dimensions of layers, with a label by the place of the layer."""
    low, high = history.bounds(level)
    places = np.arange(len(history.moments))
    for colour, (row, label) in zip(line_colours(len(labels), on_dark=is_dark(ax)), labels.items(), strict=True):
        line: dict[str, Any] = {"color": colour, "label": label, "linewidth": 1.4, "marker": ".", "markersize": 4}
        ax.fill_between(places, low[row].numpy(), high[row].numpy(), color=colour, alpha=0.25, linewidth=0)
        ax.plot(places, history.rank[row].numpy(), **line)
        below.plot(places, history.effective_dimension[row].numpy(), **line)


def _chosen_rows(history: RankHistory, layers: Sequence[str] | None, falls: Mapping[str, int]) -> list[int]:
    """Return the places of the layers to draw.

    Raises:
        ValueError: A layer is unknown.
    """
    names = history.layers
    if layers is None:
        chosen = chosen_lines(len(names))
        fallen = [row for row, name in enumerate(names) if name in falls and row not in chosen]
        return sorted([*chosen, *spread_evenly(fallen, _MORE_LINES)])
    if missing := [name for name in layers if name not in names]:
        raise ValueError(f"layers: expected some of {shortened(list(names))}, but got {shortened(missing)}")
    return [names.index(name) for name in layers]


def _moments(names: Sequence[str]) -> tuple[list[str], str]:
    """Return the labels of the moments, and what they are."""
    if all(name.startswith(STEP_LABEL) for name in names):
        return [name.removeprefix(STEP_LABEL) for name in names], "step"
    return list(names), "epoch" if any(name.isdigit() for name in names) else ""


def _finish(ax: Axes, moments: Sequence[str], wordings: Sequence[str], ending: str, max_length: int) -> None:
    """Draw ticks and the title of the y axis, which begins at 0: the first wording that fits, and its ending."""
    ax.set_ylabel(fitting([text + ending for text in wordings], max_length))
    ax.tick_params(axis="y", labelsize=font_size("tick"))
    ax.set_ylim(bottom=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlim(-0.5, len(moments) - 0.5)
    set_ticks(ax.xaxis, moments)
