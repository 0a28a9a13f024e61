"""`plot_redundancy`: a model with itself, the blocks of alike layers, and the change from each layer to the next."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from lightning_cka.compare.run_files import moment_text
from lightning_cka.figures.cells import colour_bar
from lightning_cka.figures.colour_range import Bound, colour_range
from lightning_cka.figures.flag_notes import notes_height, wrap_notes, write_below_axes
from lightning_cka.figures.heatmap_style import HeatmapStyle
from lightning_cka.figures.labels import MAX_LABEL, plain, value_label
from lightning_cka.figures.layout import MAX_TICKS, figure_of, figure_width, label_room, new_axes
from lightning_cka.figures.own_cell import axes_size
from lightning_cka.figures.title_room import title_lengths
from lightning_cka.figures.user_style import font_size, room_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from lightning_cka.decisions.redundancy import Redundancy

_ALIKE, _OTHER, _LIMIT = "#b63679", "#8a8f94", "#1f4e9c"
_WIDTH, _RIGHT = 1.7, 0.2
"""Width of the axes of the changes, and of the free room to their right, in inches, for letters of the usual size."""
_LINE = 0.15
"""Height of a line of a title, likewise."""


def plot_redundancy(
    redundancy: Redundancy,
    *,
    cmap: str | Colormap = "magma",
    vmin: Bound = 0.0,
    vmax: Bound | None = None,
    max_ticks: int = MAX_TICKS,
    max_label: int = MAX_LABEL,
    title: str | None = None,
) -> tuple[Figure, list[Axes]]:
    """Draw the heatmap of a model with itself with its blocks of alike layers, beside the change of each next layer.

    A frame is around each block of two layers or more. The bar between two rows is 1 - CKA of these layers, with its
    confidence interval. It has another colour if both layers are in one block. The dashed line is the change below
    which layers are alike. It is left out if it is far beyond all changes.

    Args:
        redundancy: What `CKAResult.redundancy` returned.
        cmap: A matplotlib colour map or its name.
        vmin: As in `plot_cka`.
        vmax: As in `plot_cka`.
        max_ticks: Maximum number of evenly spaced tick labels of each axis, at least 1. Flagged layers come on top.
        max_label: Maximum number of characters of a layer's name, at least 2.
        title: Title of the heatmap. None takes the epoch and the step.

    Returns:
        The figure and its axes: the heatmap, and the changes.

    Raises:
        ValueError: ``vmin`` or ``vmax`` is a text other than "auto".
        KeyError: ``cmap`` is not the name of a colour map.
    """
    result = redundancy.result
    low, high = colour_range([result.matrix.numpy()], vmin, vmax)
    style = HeatmapStyle(cmap=cmap, vmin=low, vmax=high, max_ticks=max_ticks, max_label=max_label)
    rows, columns, flags = style.labels(result)
    beside = (_WIDTH + _RIGHT) * room_scale()
    width = figure_width(columns, rows, beside=beside)
    lines, flag_lines = wrap_notes(_notes(redundancy), width), wrap_notes(flags, width)
    line = _LINE * room_scale()  # The title of the changes has one line more than that of the layers.
    ax = new_axes(columns, rows, below=line + notes_height(lines) + notes_height(flag_lines), beside=beside)
    changes = _axes_beside(ax, beside)
    style = replace(style, max_titles=title_lengths([ax, changes]))
    image = style.draw(result, ax)
    _draw_frames(redundancy, ax)
    colour_bar(ax, image, value_label(result), with_nan=bool(result.matrix.isnan().any()))
    ax.set_title(moment_text(result.epoch, result.step) if title is None else plain(title), fontsize=font_size("title"))
    _draw_changes(redundancy, changes)
    room = label_room(columns, axes_size(ax)[0]) + line
    write_below_axes(ax, lines, room, colour=None)
    if flag_lines:
        write_below_axes(ax, flag_lines, room + notes_height(lines))
    return figure_of(ax), [ax, changes]


def _notes(redundancy: Redundancy) -> list[str]:
    """Return what the marks mean, or why there are none."""
    if redundancy.note:
        return [redundancy.note]
    value, level = value_label(redundancy.result), f"{100 * redundancy.level:g} %"
    dashed = f"; dashed: {value} of {redundancy.alike:g}" if _shows_limit(redundancy) else ""
    return [
        f"frame: block in which each pair has {value} above {redundancy.alike:g} (lower end of the {level} interval)",
        f"bars: {level} intervals; coloured: both layers are in one block{dashed}",
    ]


def _shows_limit(redundancy: Redundancy) -> bool:
    """Return whether the change at which layers are no longer alike is near the changes, so that these stay visible."""
    return 1 - redundancy.alike <= 2.5 * max((step.change for step in redundancy.consecutive), default=0.0)


def _axes_beside(ax: Axes, width: float) -> Axes:
    """Return axes in the free room at the right edge of the figure, which is that wide, with the rows of ``ax``."""
    figure, box = figure_of(ax), ax.get_position()
    room = width / figure.get_figwidth()
    place = (1 - room, box.y0, room * _WIDTH / (_WIDTH + _RIGHT), box.height)
    right: Axes = figure.add_axes(place, sharey=ax, facecolor="none")
    right.tick_params(axis="y", left=False, labelleft=False)
    right.spines[["top", "right"]].set_visible(False)
    return right


def _draw_frames(redundancy: Redundancy, ax: Axes) -> None:
    """Draw a frame around each block of at least two layers, which is visible on light and on dark cells."""
    names = redundancy.result.layers
    for block in redundancy.blocks:
        if len(block) < 2:
            continue
        first, last = names.index(block[0]), names.index(block[-1])
        side = last - first + 1
        frame = Rectangle((first - 0.5, first - 0.5), side, side, fill=False, edgecolor="black", linewidth=1.2)
        frame.set_path_effects([withStroke(linewidth=3.0, foreground="white")])
        frame.set_clip_on(False)  # The edge of the axes does not cut a frame in half.
        ax.add_patch(frame)


def _draw_changes(redundancy: Redundancy, ax: Axes) -> None:
    """Draw a bar with its interval between the rows of each two consecutive layers."""
    names, steps = redundancy.result.layers, redundancy.consecutive
    block_of = {name: place for place, block in enumerate(redundancy.blocks) for name in block}
    places = [(names.index(step.before) + names.index(step.layer)) / 2 for step in steps]
    shared = [block_of.get(step.before, -1) == block_of.get(step.layer, -2) for step in steps]
    ax.barh(places, [step.change for step in steps], 0.6, color=[_ALIKE if each else _OTHER for each in shared])
    ends = np.array([(step.low, step.high) for step in steps]).reshape(-1, 2)
    edge = ax.spines["left"].get_edgecolor()
    ax.hlines(places, ends[:, 0].clip(min=0.0), ends[:, 1], color=edge, linewidth=min(1.2, 40 / len(names)))
    if _shows_limit(redundancy):
        ax.axvline(1 - redundancy.alike, color=_LIMIT, linewidth=1.0, linestyle="--")
    ax.set_xlim(left=0.0)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.tick_params(axis="x", labelsize=font_size("tick"))
    ax.set_xlabel(f"1 - {value_label(redundancy.result)}\nwith the next layer")
