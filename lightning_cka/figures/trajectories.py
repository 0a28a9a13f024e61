"""Figures of trajectories: CKA of each layer with itself at the other epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lightning_cka.compare.bank_series import STEP_LABEL
from lightning_cka.figures.cells import colour_bar, draw_cells
from lightning_cka.figures.colour_range import Bound, colour_range, has_nan, narrow_range_note
from lightning_cka.figures.flag_notes import FLAG, marked
from lightning_cka.figures.heatmap import plot_cka
from lightning_cka.figures.heatmap_style import HeatmapStyle
from lightning_cka.figures.labels import MAX_TITLE, axis_title, elided, fitting, plain, short_labels, value_label
from lightning_cka.figures.layout import figure_of
from lightning_cka.figures.own_cell import text_lengths
from lightning_cka.figures.panel_grid import noted_grid
from lightning_cka.figures.panels import draw_panels
from lightning_cka.figures.ticks import set_ticks
from lightning_cka.figures.title_room import title_lengths
from lightning_cka.figures.user_style import font_size
from lightning_cka.hsic.measure import measure_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from lightning_cka.compare.result import CKAResult


_LEAST_NAME = 8
"""Number of characters of a network's name with less than which it is left out."""


def plot_trajectory(
    result: CKAResult,
    ax: Axes | None = None,
    *,
    cmap: str | Colormap = "magma",
    vmin: Bound = 0.0,
    vmax: Bound | None = None,
    flags: bool = True,
    colorbar: bool = True,
    title: str | None = None,
) -> tuple[Figure, Axes]:
    """Draw the epoch-by-epoch heatmap of one layer.

    Args:
        result: One result of `lightning_cka.trajectories`, with an ``(E, E)`` matrix for E epochs.
        ax: Axes to draw into. None makes a new figure.
        cmap: As in `plot_cka`.
        vmin: As in `plot_cka`.
        vmax: As in `plot_cka`.
        flags: As in `plot_cka`.
        colorbar: As in `plot_cka`.
        title: Title of the heatmap. None names the layer and the network.

    Returns:
        The figure and its axes.

    Raises:
        ValueError: ``vmin`` or ``vmax`` is a text other than "auto".
        KeyError: ``cmap`` is not the name of a colour map.
    """
    figure, ax = plot_cka(
        result,
        ax,
        cmap=cmap,
        vmin=vmin,
        vmax=vmax,
        flags=flags,
        colorbar=colorbar,
        title=_layer_title(result, MAX_TITLE if ax is None else text_lengths(ax)[1]) if title is None else title,
    )
    _set_moment_titles((ax.xaxis, ax.yaxis), result.layers)
    return figure, ax


def plot_trajectories(
    results: Mapping[str, CKAResult],
    *,
    across: int = 4,
    cmap: str | Colormap = "magma",
    vmin: Bound = 0.0,
    vmax: Bound | None = None,
    flags: bool = True,
    colorbar: bool = True,
    titles: Sequence[str] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Draw the epoch-by-epoch heatmaps of several layers side by side, with one colour range.

    Args:
        results: Results by layer, as `lightning_cka.trajectories` returns them; at least one.
        across: Maximum number of heatmaps side by side, at least 1.
        cmap: As in `plot_cka`.
        vmin: As in `plot_comparison`.
        vmax: As in `plot_comparison`.
        flags: As in `plot_cka`.
        colorbar: Whether to draw a colour bar.
        titles: One title per heatmap. None takes the names of the layers.

    Returns:
        The figure, and the axes of each layer.

    Raises:
        ValueError: There is no result, the number of titles is wrong, or ``vmin`` or ``vmax`` is a text other than
            "auto".
        KeyError: ``cmap`` is not the name of a colour map.
    """
    network, found = _network(_first(results)), list(results.values())
    if titles is not None and len(titles) != len(found):
        raise ValueError(f"expected one title per layer, but got {len(found)} layers and {len(titles)} titles")
    low, high = colour_range([result.matrix.numpy() for result in found], vmin, vmax)
    figure, grid = draw_panels(
        found,
        partial(_layer_titles, list(results)) if titles is None else lambda _: titles,
        [""] * len(found),
        HeatmapStyle(cmap=cmap, vmin=low, vmax=high, flags=flags),
        across,
        colorbar=colorbar,
    )
    lowest = min(ax.get_position().y0 for ax in grid)
    longest = title_lengths(grid)[0]
    for ax, result in zip(grid, found, strict=True):
        _set_moment_titles((ax.xaxis, *([ax.yaxis] if ax.get_ylabel() else [])), result.layers)
        if network and ax.get_position().y0 == lowest:
            name = elided(network, max(_LEAST_NAME, longest - len(f"{ax.get_xlabel()} of ")))
            ax.set_xlabel(fitting([plain(f"{ax.get_xlabel()} of {name}".strip()), ax.get_xlabel()], longest))
    return figure, grid


def _layer_titles(names: Sequence[str], max_length: int) -> list[str]:
    """Return the names of layers, without their common prefix if they are longer than ``max_length``."""
    if max(map(len, names)) > max_length:
        return short_labels(names, max_length)[0]
    return [plain(name) for name in names]


def plot_convergence(
    results: Mapping[str, CKAResult],
    *,
    cmap: str | Colormap = "magma",
    vmin: Bound = 0.0,
    vmax: Bound | None = None,
    flags: bool = True,
    colorbar: bool = True,
    titles: Sequence[str] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Draw two layer-by-epoch maps: CKA with the same layer at the first epoch, and at the last epoch.

    A layer that converges early gets bright early in the second map, as in Raghu et al. 2017 (SVCCA,
    https://arxiv.org/abs/1706.05806).

    Args:
        results: Results by layer, as `lightning_cka.trajectories` returns them; at least one.
        cmap: As in `plot_cka`.
        vmin: As in `plot_comparison`, for the values of both maps.
        vmax: As in `plot_comparison`, for the values of both maps.
        flags: Whether to mark flagged layers.
        colorbar: Whether to draw a colour bar.
        titles: The titles of both maps. None names the first and the last epoch.

    Returns:
        The figure, and the axes of both maps.

    Raises:
        ValueError: There is no result, the number of titles is not 2, or ``vmin`` or ``vmax`` is a text other than
            "auto".
        KeyError: ``cmap`` is not the name of a colour map.
    """
    first = _first(results)
    if titles is not None and len(titles) != 2:
        raise ValueError(f"expected titles of both maps, but got {len(titles)}")
    layers, prefix = short_labels(list(results))
    flagged = {place for place, result in enumerate(results.values()) if flags and result.flags}
    layers = marked(layers, flagged)
    maps = [np.array([result.matrix[:, column].numpy() for result in results.values()]) for column in (0, -1)]
    low, high = colour_range(maps, vmin, vmax)
    reasons = [f"{FLAG} see the layer's own epoch by epoch map for why it is flagged"] if flagged else []
    notes = narrow_range_note(maps, low, high)
    grid = noted_grid(first.layers, layers, 2, 2, notes, reasons, labels_once=True, tallest=9.0)
    wide, tall = title_lengths(grid)
    titles = _convergence_titles(first, wide) if titles is None else titles
    for ax, values, title in zip(grid, maps, titles, strict=True):
        image = draw_cells(ax, values, cmap, low, high)
        set_ticks(ax.xaxis, first.layers)
        set_ticks(ax.yaxis, layers, flagged, names=list(results))
        _set_moment_titles((ax.xaxis,), first.layers)
        ax.set_title(plain(title), fontsize=font_size("title"))
    grid[0].set_ylabel(axis_title(_network(first), prefix, max_length=tall))
    grid[1].tick_params(labelleft=False)
    if colorbar:
        colour_bar(grid[-1], image, value_label(first), with_nan=has_nan(maps))
    return figure_of(grid[0]), grid


def _first(results: Mapping[str, CKAResult]) -> CKAResult:
    """Return the first result.

    Raises:
        ValueError: There is none.
    """
    if not results:
        raise ValueError("there is no trajectory to draw: pass at least one")
    return next(iter(results.values()))


def _convergence_titles(result: CKAResult, max_length: int) -> list[str]:
    """Return the titles of the maps of the first and of the last moment."""
    moments = [f"with {_moment(result.layers[column])}" for column in (0, -1)]
    return [fitting([f"{measure_title(result.measure)} {each}", each], max_length) for each in moments]


def _network(result: CKAResult) -> str:
    """Return the class of the network; "" for results of older versions, which do not have it."""
    return "" if result.reference_name == result.model_name else result.reference_name


def _layer_title(result: CKAResult, max_length: int) -> str:
    """Return the layer and the network, or the layer alone if there is no room for both."""
    network = _network(result)
    title = f"{result.model_name} of {network}" if network else result.model_name
    return title if len(title) <= max_length else elided(result.model_name, max_length)


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
