"""Several heatmaps in one figure, and those of trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_cka.figures.canvas import (
    FLAG,
    FLAG_COLOUR,
    MAX_LABEL,
    MAX_TICKS,
    axis_title,
    colour_bar,
    draw_cells,
    elided,
    figure_of,
    new_grid,
    plain,
    set_ticks,
    short_labels,
)
from lightning_cka.figures.heatmap import HeatmapStyle, marked, notes_height, plot_cka, value_label, wrap_notes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_cka.compare.result import CKAResult


def plot_comparison(
    results: Sequence[CKAResult],
    titles: Sequence[str] | None = None,
    *,
    across: int = 4,
    add_text: bool = False,
    cmap: str = "magma",
    vmin: float = 0.0,
    vmax: float = 1.0,
    triangle: bool = False,
    max_ticks: int = MAX_TICKS,
    max_label: int = MAX_LABEL,
) -> tuple[Figure, list[Axes]]:
    """Heatmaps of several results side by side, on one colour range.

    Args:
        results: at least one.
        titles: of each; None: model, reference and epoch.
        across: number of heatmaps in a line.
        add_text: as in `plot_cka`, like all that follow.
        cmap: likewise.
        vmin: likewise.
        vmax: likewise.
        triangle: likewise.
        max_ticks: likewise.
        max_label: likewise.

    Returns:
        The figure, and the axes of each heatmap.

    Raises:
        ValueError: no results, or not a title for each.
    """
    if not results:
        raise ValueError("there is no result to draw")
    if titles is None:
        titles = [plain(_title(result)) for result in results]
    if len(titles) != len(results):
        raise ValueError(f"there are {len(results)} results, but {len(titles)} titles")
    style = HeatmapStyle(add_text, cmap, vmin, vmax, triangle, max_ticks, max_label)
    labels = [style.labels(result) for result in results]
    notes = [f"{title}: {note}" for title, (_, _, found) in zip(titles, labels, strict=True) for note in found]
    rows, columns = (max((each[side] for each in labels), key=_room) for side in (0, 1))
    width = figure_of(new_grid(columns, rows, len(results), across, 0.0)[0]).get_figwidth()
    wrapped = wrap_notes(notes, width)
    grid = new_grid(columns, rows, len(results), across, notes_height(wrapped))
    for place, (ax, result, title) in enumerate(zip(grid, results, titles, strict=True)):
        image = style.draw(result, ax)
        ax.set_title(elided(title), fontsize=10)
        if place % across == across - 1 or place == len(results) - 1:
            colour_bar(ax, image, value_label(result), with_nan=bool(result.matrix.isnan().any()))
    figure = figure_of(grid[0])
    _write_below(figure, wrapped)
    return figure, grid


def plot_trajectory(result: CKAResult, ax: Axes | None = None, *, cmap: str = "magma") -> tuple[Figure, Axes]:
    """Epoch by epoch heatmap of one layer.

    Args:
        result: one of those of `lightning_cka.compare.trajectories`.
        ax: where; None: a new figure.
        cmap: a matplotlib colour map, from 0 to 1.

    Returns:
        The figure and the axes.
    """
    figure, ax = plot_cka(result, ax, cmap=cmap)
    _name_epochs(ax, result.layers)
    ax.set_title(plain(elided(result.model_name)), fontsize=10)
    return figure, ax


def plot_trajectories(
    results: Mapping[str, CKAResult], *, across: int = 4, cmap: str = "magma"
) -> tuple[Figure, list[Axes]]:
    """Epoch by epoch heatmaps of several layers.

    Args:
        results: of `lightning_cka.compare.trajectories`.
        across: number of heatmaps in a line.
        cmap: a matplotlib colour map, from 0 to 1.

    Returns:
        The figure, and the axes of each layer.
    """
    titles = [plain(name) for name in results]
    figure, grid = plot_comparison(list(results.values()), titles, across=across, cmap=cmap)
    for ax, result in zip(grid, results.values(), strict=True):
        _name_epochs(ax, result.layers)
    return figure, grid


def plot_convergence(results: Mapping[str, CKAResult], *, cmap: str = "magma") -> tuple[Figure, list[Axes]]:
    """Layer by epoch maps of CKA with the layer at the first epoch, and at the last one.

    Layers that stop changing early are bright early in the second map, as in Raghu et al. 2017 (SVCCA,
    https://arxiv.org/abs/1706.05806).

    Args:
        results: of `lightning_cka.compare.trajectories`.
        cmap: a matplotlib colour map, from 0 to 1.

    Returns:
        The figure, and the axes of both maps.
    """
    if not results:
        raise ValueError("there is no trajectory to draw")
    names, prefix = short_labels(list(results))
    flagged = {place for place, result in enumerate(results.values()) if result.flags}
    names = marked(names, flagged)
    note = [f"{FLAG} see the layer's own epoch by epoch map for why it is flagged"] if flagged else []
    first = next(iter(results.values()))
    moments = list(first.layers)
    grid = new_grid(moments, names, 2, 2, notes_height(note))
    for ax, column in zip(grid, (0, -1), strict=True):
        values = np.array([result.matrix[:, column].numpy() for result in results.values()])
        image = draw_cells(ax, values, cmap, 0.0, 1.0)
        set_ticks(ax.xaxis, moments)
        set_ticks(ax.yaxis, names, flagged)
        _name_epochs(ax, moments)
        ax.set_ylabel(axis_title("layer", prefix))
        ax.set_title(f"CKA with {_moment(moments[column])}", fontsize=10)
    _write_below(figure_of(grid[0]), note)
    nan = any(bool(result.matrix.isnan().any()) for result in results.values())
    colour_bar(grid[-1], image, value_label(first), with_nan=nan)
    return figure_of(grid[0]), grid


def _write_below(figure: Figure, lines: Sequence[str]) -> None:
    width, height = figure.get_size_inches()
    figure.text(0.1 / width, 0.05 / height, "\n".join(lines), va="bottom", fontsize=7, color=FLAG_COLOUR)


def _moment(name: str) -> str:
    if name == "init":
        return "the initial state"
    return f"epoch {name}" if name.isdigit() else name


def _name_epochs(ax: Axes, moments: Sequence[str]) -> None:
    title = "epoch" if any(name.isdigit() for name in moments) else ""
    ax.set_xlabel(title)
    ax.set_ylabel(title)


def _room(labels: Sequence[str]) -> tuple[int, int]:
    """What of several panels' labels needs most room: first their number, then their length."""
    return len(labels), max(map(len, labels))


def _title(result: CKAResult) -> str:
    epoch = "" if result.epoch is None else f", epoch {result.epoch}"
    return f"{result.model_name} and {result.reference_name}{epoch}"
