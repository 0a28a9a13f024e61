"""The heatmap of one CKA result."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from lightning_cka.compare.run_files import moment_text
from lightning_cka.figures.cells import colour_bar
from lightning_cka.figures.colour_range import Bound, colour_range, narrow_range_note
from lightning_cka.figures.flag_notes import (
    FLAG,
    FLAG_COLOUR,
    notes_height,
    wrap_notes,
    write_below_axes,
    write_short_notes,
)
from lightning_cka.figures.heatmap_style import HeatmapLabels, HeatmapStyle
from lightning_cka.figures.labels import MAX_LABEL, fitting, plain, value_label
from lightning_cka.figures.layout import MAX_TICKS, figure_of, figure_width, label_room, new_axes
from lightning_cka.figures.own_cell import axes_size, fit_into_cell, text_lengths
from lightning_cka.figures.title_room import title_lengths
from lightning_cka.figures.user_style import font_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from lightning_cka.compare.result import CKAResult


def plot_cka(
    result: CKAResult,
    ax: Axes | None = None,
    *,
    add_text: bool = False,
    cmap: str | Colormap = "magma",
    vmin: Bound = 0.0,
    vmax: Bound | None = None,
    triangle: bool = False,
    max_ticks: int = MAX_TICKS,
    max_label: int = MAX_LABEL,
    flags: bool = True,
    colorbar: bool = True,
    title: str | None = None,
) -> tuple[Figure, Axes]:
    """Draw a result as a heatmap, with the model's layers on the y axis and the reference's on the x axis.

    The first layers are at the lower left. Flagged layers have a red label with a warning sign. Lines below the
    heatmap give the reasons. If the colours of all values are nearly equal, a line says so.

    A new figure has the size and the font sizes of ``matplotlib.rcParams`` where these are not matplotlib's defaults.
    In your own axes, one short line above the heatmap takes the place of the lines below it. The axes become smaller to
    make room for labels and colour bar, so that these do not cover neighbouring axes.

    Args:
        result: Result with an ``(L, R)`` matrix of CKA values. Cells with ``nan`` are grey.
        ax: Axes to draw into. None makes a new figure.
        add_text: Whether to write the values into the cells, with their standard errors if these are known.
        cmap: A matplotlib colour map or its name.
        vmin: Value at the lower end of the colour map. Smaller values get the same colour. "auto" takes the smallest
            value of the result.
        vmax: Value at the upper end of the colour map. Larger values get the same colour. "auto" takes the largest
            value of the result. None takes 1, or "auto" if ``vmin`` is "auto".
        triangle: Whether to draw each pair of layers only once. This needs a comparison of a model with itself.
        max_ticks: Maximum number of evenly spaced tick labels of each axis, at least 1. Flagged layers come on top.
        max_label: Maximum number of characters of a layer's name, at least 2. Longer names lose their middle, as far
            as labels stay distinct.
        flags: Whether to mark flagged layers and to give the reasons.
        colorbar: Whether to draw a colour bar.
        title: Title of the heatmap. None takes the epoch and the step.

    Returns:
        The figure and its axes. The figure is not registered with pyplot: save it with ``figure.savefig``.

    Raises:
        ValueError: ``triangle`` is True, but the result compares two models; or ``vmin`` or ``vmax`` is a text other
            than "auto".
        KeyError: ``cmap`` is not the name of a colour map.
    """
    values = [result.matrix.numpy()]
    low, high = colour_range(values, vmin, vmax)
    style = HeatmapStyle(add_text, cmap, low, high, triangle, max_ticks, max_label, flags)
    if ax is not None:
        style = _for_own_axes(style, ax)
    labels = style.labels(result)
    own = ax is None
    if ax is None:
        lines, flag_lines = notes_below(result, style, labels)
        ax = new_axes(labels.columns, labels.rows, below=notes_height(lines) + notes_height(flag_lines))
        style = replace(style, max_titles=title_lengths([ax]))
    image = style.draw(result, ax)
    if colorbar:
        colour_bar(ax, image, value_label(result), with_nan=bool(result.matrix.isnan().any()))
    ax.set_title(moment_text(result.epoch, result.step) if title is None else plain(title), fontsize=font_size("title"))
    if own:
        room = label_room(labels.columns, axes_size(ax)[0])
        if lines:
            write_below_axes(ax, lines, room, colour=None)
        if flag_lines:
            write_below_axes(ax, flag_lines, room + notes_height(lines))
    else:
        longest = style.max_titles[0] * 3 // 2  # Letters of notes are smaller than those of titles.
        narrow = narrow_range_note(values, low, high, short=True)
        notes = [fitting([note, note.split(":")[0]], longest) for note in narrow]
        write_short_notes(ax, [(note, None) for note in notes] + _short(labels.notes, longest))
        fit_into_cell(ax, again=partial(style.set_ticks, result, ax))
    return figure_of(ax), ax


def notes_below(result: CKAResult, style: HeatmapStyle, labels: HeatmapLabels) -> tuple[list[str], list[str]]:
    """Return the lines below a heatmap in a new figure: about the range of its values, and about its flags."""
    width = figure_width(labels.columns, labels.rows)
    narrow = narrow_range_note([result.matrix.numpy()], style.vmin, style.vmax)
    return wrap_notes(narrow, width), wrap_notes(labels.notes, width)


def _for_own_axes(style: HeatmapStyle, ax: Axes) -> HeatmapStyle:
    """Return a style whose labels and titles leave more than half of the axes to the cells."""
    longest, wide, high = text_lengths(ax)
    return replace(style, max_label=min(style.max_label, longest), max_titles=(wide, high))


def _short(reasons: list[str], max_length: int) -> list[tuple[str, str | None]]:
    """Return one short line with its colour if there are flags, else none."""
    wordings = f"{FLAG} see the result's flags", f"{FLAG} see flags"
    return [(fitting(wordings, max_length), FLAG_COLOUR)] if reasons else []
