"""Heatmaps of several results side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from lightning_cka.compare.run_files import short_moment_text
from lightning_cka.figures.cells import colour_bar
from lightning_cka.figures.colour_range import Bound, colour_range, has_nan, narrow_range_note
from lightning_cka.figures.heatmap_style import HeatmapLabels, HeatmapStyle
from lightning_cka.figures.labels import MAX_LABEL, elided, plain, shared_value_label, shortened_name, value_label
from lightning_cka.figures.layout import MAX_TICKS, figure_of
from lightning_cka.figures.panel_grid import grid_width, noted_grid, panel_distance, panels_across
from lightning_cka.figures.title_room import characters, title_lengths
from lightning_cka.figures.user_style import font_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from lightning_cka.compare.result import CKAResult


def plot_comparison(
    results: Sequence[CKAResult],
    titles: Sequence[str] | None = None,
    *,
    across: int = 4,
    add_text: bool = False,
    cmap: str | Colormap = "magma",
    vmin: Bound = 0.0,
    vmax: Bound | None = None,
    triangle: bool = False,
    max_ticks: int = MAX_TICKS,
    max_label: int = MAX_LABEL,
    flags: bool = True,
    colorbar: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Draw heatmaps of several results side by side, with one colour range.

    Args:
        results: At least one result.
        titles: One title per heatmap. None takes the names of model and reference, and the epoch; or, where these are
            too long, only what differs.
        across: Maximum number of heatmaps side by side, at least 1.
        add_text: As in `plot_cka`.
        cmap: As in `plot_cka`.
        vmin: As in `plot_cka`, but "auto" takes the smallest value of all results.
        vmax: As in `plot_cka`, but "auto" takes the largest value of all results.
        triangle: As in `plot_cka`.
        max_ticks: As in `plot_cka`.
        max_label: As in `plot_cka`.
        flags: As in `plot_cka`.
        colorbar: Whether to draw a colour bar at the right.

    Returns:
        The figure, and the axes of each heatmap.

    Raises:
        ValueError: There is no result, the number of titles is wrong, or ``triangle`` is True but a result compares
            two models, or ``vmin`` or ``vmax`` is a text other than "auto".
        KeyError: ``cmap`` is not the name of a colour map.
    """
    if not results:
        raise ValueError("there is no result to draw: pass at least one")
    if titles is not None and len(titles) != len(results):
        raise ValueError(f"expected one title per result, but got {len(results)} results and {len(titles)} titles")
    values = [result.matrix.numpy() for result in results]
    style = HeatmapStyle(add_text, cmap, *colour_range(values, vmin, vmax), triangle, max_ticks, max_label, flags)
    moments = [short_moment_text(result.epoch, result.step) for result in results]
    style = replace(style, moment=titles is not None or len(set(moments)) == 1)  # Otherwise, the titles have it.
    return draw_panels(
        results,
        partial(comparison_titles, results) if titles is None else lambda _: titles,
        [result.model_name + moment * style.moment for result, moment in zip(results, moments, strict=True)],
        style,
        across,
        colorbar=colorbar,
    )


def draw_panels(
    results: Sequence[CKAResult],
    titles: Callable[[int], Sequence[str]],
    row_names: Sequence[str],
    style: HeatmapStyle,
    across: int,
    *,
    colorbar: bool,
) -> tuple[Figure, list[Axes]]:
    """Draw heatmaps side by side.

    If all have the same rows and the same names of the y axis, only the heatmaps at the left have labels of their rows.

    Args:
        results: At least one result.
        titles: Returns one title per heatmap, for the maximum number of characters.
        row_names: What the y axis of each heatmap is called.
        style: Options of all heatmaps.
        across: Maximum number of heatmaps side by side.
        colorbar: Whether to draw a colour bar at the right.

    Returns:
        The figure, and the axes of each heatmap.
    """
    values = [result.matrix.numpy() for result in results]
    labels = [style.labels(result) for result in results]
    rows, columns = (max(each, key=_room) for each in zip(*[(each.rows, each.columns) for each in labels], strict=True))
    once = len({(name, *each.rows) for name, each in zip(row_names, labels, strict=True)}) == 1
    across = panels_across(columns, rows, len(results), across, labels_once=once)
    if len(results) > 1:
        longest = panel_distance(columns, rows, across, labels_once=once)
    else:
        longest = grid_width(columns, rows, across, labels_once=once)
    texts = titles(characters(longest))
    notes = narrow_range_note(values, style.vmin, style.vmax)
    grid = noted_grid(columns, rows, len(results), across, notes, _reasons(texts, labels), labels_once=once)
    style = replace(style, max_titles=title_lengths(grid))
    for ax, result, text in zip(grid, results, texts, strict=True):
        image = style.draw(result, ax)
        ax.set_title(elided(text, style.max_titles[0]), fontsize=font_size("title"))
    if once:
        _label_first(grid, across)
    if colorbar:
        label = shared_value_label(results)
        colour_bar(grid[across - 1], image, label, with_nan=has_nan(values), down_to=grid[-1])
    return figure_of(grid[0]), grid


def _reasons(titles: Sequence[str], labels: Sequence[HeatmapLabels]) -> list[str]:
    """Return the notes on the flags of all heatmaps, with their titles."""
    return [f"{title}: {note}" for title, each in zip(titles, labels, strict=True) for note in each.notes]


def _label_first(grid: Sequence[Axes], across: int) -> None:
    """Remove the labels of rows from all heatmaps but those at the left."""
    for place, ax in enumerate(grid):
        if place % across:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)


def comparison_titles(results: Sequence[CKAResult], max_length: int) -> list[str]:
    """Return a title for each result: model, moment and reference; or what tells the results apart, if it is shorter.

    Args:
        results: The results.
        max_length: Maximum number of characters, as far as that is possible.
    """
    moments = [short_moment_text(result.epoch, result.step) for result in results]
    values = [value_label(result) for result in results]
    if len(set(values)) > 1:  # The axes have the names of model and reference.
        return [plain(": ".join(filter(None, texts))) for texts in zip(moments, values, strict=True)]
    parts = [
        (result.model_name, moment, result.reference_name) for moment, result in zip(moments, results, strict=True)
    ]
    titles = [f"{model}, {moment}, and {name}" if moment else f"{model} and {name}" for model, moment, name in parts]
    if max(map(len, titles)) > max_length:
        titles = [short or title for short, title in zip(_differing(parts), titles, strict=True)]
    return [plain(shortened_name(title, max_length)) for title in titles]


def _differing(parts: Sequence[tuple[str, ...]]) -> list[str]:
    """Return those parts of each title that are not the same in all titles."""
    places = [place for place, texts in enumerate(zip(*parts, strict=True)) if len(set(texts)) > 1]
    return [", ".join(part[place] for place in places if part[place]) for part in parts]


def _room(labels: Sequence[str]) -> tuple[int, int]:
    """Return the number of labels and the length of the longest one, to find the panel that needs most room."""
    return len(labels), max(map(len, labels))
