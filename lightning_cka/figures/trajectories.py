"""Figures of trajectories: CKA of each layer with itself at the other epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lightning_cka.compare.bank_series import STEP_LABEL
from lightning_cka.figures.colour_range import Bound, colour_range
from lightning_cka.figures.heatmap import plot_cka
from lightning_cka.figures.heatmap_style import HeatmapStyle
from lightning_cka.figures.labels import MAX_TITLE, elided, fitting, plain, short_labels
from lightning_cka.figures.own_cell import text_lengths
from lightning_cka.figures.panels import draw_panels
from lightning_cka.figures.title_room import title_lengths

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
    set_moment_titles((ax.xaxis, ax.yaxis), result.layers)
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
    network, found = network_of(first_of(results)), list(results.values())
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
        set_moment_titles((ax.xaxis, *([ax.yaxis] if ax.get_ylabel() else [])), result.layers)
        if network and ax.get_position().y0 == lowest:
            name = elided(network, max(_LEAST_NAME, longest - len(f"{ax.get_xlabel()} of ")))
            ax.set_xlabel(fitting([plain(f"{ax.get_xlabel()} of {name}".strip()), ax.get_xlabel()], longest))
    return figure, grid


def _layer_titles(names: Sequence[str], max_length: int) -> list[str]:
    """Return the names of layers, without their common prefix if they are longer than ``max_length``."""
    if max(map(len, names)) > max_length:
        return short_labels(names, max_length)[0]
    return [plain(name) for name in names]


def first_of(results: Mapping[str, CKAResult]) -> CKAResult:
    """Return the first result.

    Raises:
        ValueError: There is none.
    """
    if not results:
        raise ValueError("there is no trajectory to draw: pass at least one")
    return next(iter(results.values()))


def network_of(result: CKAResult) -> str:
    """Return the class of the network; "" for results of older versions, which do not have it."""
    return "" if result.reference_name == result.model_name else result.reference_name


def _layer_title(result: CKAResult, max_length: int) -> str:
    """Return the layer and the network, or the layer alone if there is no room for both."""
    network = network_of(result)
    title = f"{result.model_name} of {network}" if network else result.model_name
    return title if len(title) <= max_length else elided(result.model_name, max_length)


def set_moment_titles(axes: Sequence[Axis], moments: Sequence[str]) -> None:
    """Title axes "epoch" or "step", whose labels become numbers, or not at all if the moments are neither."""
    title = "epoch" if any(name.isdigit() for name in moments) else ""
    if all(name.startswith(STEP_LABEL) for name in moments):
        title = "step"
        for axis in axes:
            axis.set_ticklabels([label.get_text().replace(STEP_LABEL, "") for label in axis.get_ticklabels()])
    for axis in axes:
        axis.set_label_text(title)
