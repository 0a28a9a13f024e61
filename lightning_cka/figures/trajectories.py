"""Figures of trajectories: CKA of each layer with itself at the other epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_cka.compare.bank_series import STEP_LABEL
from lightning_cka.figures.cells import colour_bar, draw_cells
from lightning_cka.figures.flag_notes import FLAG, marked, notes_height, write_at_bottom
from lightning_cka.figures.heatmap import plot_cka
from lightning_cka.figures.labels import axis_title, elided, plain, short_labels, value_label
from lightning_cka.figures.layout import figure_of, new_grid
from lightning_cka.figures.panels import plot_comparison
from lightning_cka.figures.ticks import set_ticks
from lightning_cka.figures.user_style import font_size
from lightning_cka.hsic.measure import measure_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from lightning_cka.compare.result import CKAResult


def plot_trajectory(result: CKAResult, ax: Axes | None = None, *, cmap: str = "magma") -> tuple[Figure, Axes]:
    """Draw the epoch-by-epoch heatmap of one layer, with colours from 0 to 1.

    Args:
        result: One result of `lightning_cka.trajectories`, with an ``(E, E)`` matrix for E epochs.
        ax: Axes to draw into. None makes a new figure.
        cmap: Name of a matplotlib colour map.

    Returns:
        The figure and its axes.

    Raises:
        KeyError: ``cmap`` is not the name of a colour map.
    """
    figure, ax = plot_cka(result, ax, cmap=cmap)
    _set_moment_titles((ax.xaxis, ax.yaxis), result.layers)
    ax.set_title(plain(elided(result.model_name)), fontsize=font_size("title"))
    return figure, ax


def plot_trajectories(
    results: Mapping[str, CKAResult], *, across: int = 4, cmap: str = "magma"
) -> tuple[Figure, list[Axes]]:
    """Draw the epoch-by-epoch heatmaps of several layers side by side, with colours from 0 to 1.

    Args:
        results: Results by layer, as `lightning_cka.trajectories` returns them; at least one.
        across: Maximum number of heatmaps side by side, at least 1.
        cmap: Name of a matplotlib colour map.

    Returns:
        The figure, and the axes of each layer.

    Raises:
        ValueError: There is no result.
        KeyError: ``cmap`` is not the name of a colour map.
    """
    titles = [plain(name) for name in results]
    figure, grid = plot_comparison(list(results.values()), titles, across=across, cmap=cmap)
    for ax, result in zip(grid, results.values(), strict=True):
        _set_moment_titles((ax.xaxis, ax.yaxis), result.layers)
    return figure, grid


def plot_convergence(results: Mapping[str, CKAResult], *, cmap: str = "magma") -> tuple[Figure, list[Axes]]:
    """Draw two layer-by-epoch maps: CKA with the same layer at the first epoch, and at the last epoch.

    Colours range from 0 to 1. A layer that converges early gets bright early in the second map, as in Raghu et al.
    2017 (SVCCA, https://arxiv.org/abs/1706.05806).

    Args:
        results: Results by layer, as `lightning_cka.trajectories` returns them; at least one.
        cmap: Name of a matplotlib colour map.

    Returns:
        The figure, and the axes of both maps.

    Raises:
        ValueError: There is no result.
        KeyError: ``cmap`` is not the name of a colour map.
    """
    if not results:
        raise ValueError("there is no trajectory to draw: pass at least one")
    layers, prefix = short_labels(list(results))
    flagged = {place for place, result in enumerate(results.values()) if result.flags}
    layers = marked(layers, flagged)
    note = [f"{FLAG} see the layer's own epoch by epoch map for why it is flagged"] if flagged else []
    first = next(iter(results.values()))
    grid = new_grid(first.layers, layers, 2, 2, notes_height(note))
    for ax, column in zip(grid, (0, -1), strict=True):
        values = np.array([result.matrix[:, column].numpy() for result in results.values()])
        image = draw_cells(ax, values, cmap, 0.0, 1.0)
        set_ticks(ax.xaxis, first.layers)
        set_ticks(ax.yaxis, layers, flagged, names=list(results))
        _set_moment_titles((ax.xaxis,), first.layers)
        ax.set_ylabel(axis_title("", prefix))
        ax.set_title(
            f"{measure_title(first.measure)} with {_moment(first.layers[column])}", fontsize=font_size("title")
        )
    write_at_bottom(figure_of(grid[0]), note)
    has_nan = any(bool(result.matrix.isnan().any()) for result in results.values())
    colour_bar(grid[-1], image, value_label(first), with_nan=has_nan)
    return figure_of(grid[0]), grid


def _moment(name: str) -> str:
    """Return words for a moment of training, such as "epoch 3" for "3"."""
    if name == "init":
        return "the initial state"
    return f"epoch {name}" if name.isdigit() else name


def _set_moment_titles(axes: Sequence[Axis], moments: Sequence[str]) -> None:
    """Title axes "epoch" or "step", whose labels become numbers, or not at all if the moments are neither."""
    title = "epoch" if any(name.isdigit() for name in moments) else ""
    if all(name.startswith(STEP_LABEL) for name in moments):
        title = "step"
        for axis in axes:
            axis.set_ticklabels([label.get_text().replace(STEP_LABEL, "") for label in axis.get_ticklabels()])
    for axis in axes:
        axis.set_label_text(title)
