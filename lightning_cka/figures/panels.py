"""Heatmaps of several results side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_cka.compare.run_files import short_moment_text
from lightning_cka.figures.cells import colour_bar
from lightning_cka.figures.colour_range import Bound, colour_range, narrow_range_note
from lightning_cka.figures.flag_notes import notes_height, wrap_notes, write_at_bottom
from lightning_cka.figures.heatmap_style import HeatmapLabels, HeatmapStyle
from lightning_cka.figures.labels import MAX_LABEL, elided, plain, shared_value_label, value_label
from lightning_cka.figures.layout import MAX_TICKS, figure_of, grid_width, new_grid, panels_across
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
        titles: One title per heatmap. None takes the names of model and reference, and the epoch.
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
    titles = _checked_titles(results, titles)
    values = [result.matrix.numpy() for result in results]
    low, high = colour_range(values, vmin, vmax)
    style = HeatmapStyle(add_text, cmap, low, high, triangle, max_ticks, max_label, flags)
    notes = narrow_range_note(values, low, high)
    grid = _labelled_grid([style.labels(result) for result in results], titles, across, notes)
    label = shared_value_label(results)
    has_nan = any(bool(result.matrix.isnan().any()) for result in results)
    for ax, result, title in zip(grid, results, titles, strict=True):
        image = style.draw(result, ax)
        ax.set_title(elided(title), fontsize=font_size("title"))
    if colorbar:
        colour_bar(grid[panels_across(len(grid), across) - 1], image, label, with_nan=has_nan, down_to=grid[-1])
    return figure_of(grid[0]), grid


def _checked_titles(results: Sequence[CKAResult], titles: Sequence[str] | None) -> Sequence[str]:
    """Return one title per result.

    Raises:
        ValueError: There is no result, or the number of titles is wrong.
    """
    if not results:
        raise ValueError("there is no result to draw: pass at least one")
    if titles is None:
        is_mixed = len({value_label(result) for result in results}) > 1
        return [plain(_measure_title(result) if is_mixed else _title(result)) for result in results]
    if len(titles) != len(results):
        raise ValueError(f"expected one title per result, but got {len(results)} results and {len(titles)} titles")
    return titles


def _labelled_grid(
    labels: Sequence[HeatmapLabels], titles: Sequence[str], across: int, notes: Sequence[str]
) -> list[Axes]:
    """Return axes with room for the labels of every panel, and with common notes and the flags of all panels below."""
    rows = max((each.rows for each in labels), key=_room)
    columns = max((each.columns for each in labels), key=_room)
    reasons = [f"{title}: {note}" for title, each in zip(titles, labels, strict=True) for note in each.notes]
    width = grid_width(columns, rows, len(labels), across)
    lines, flag_lines = wrap_notes(notes, width), wrap_notes(reasons, width)
    height = notes_height(flag_lines)
    grid = new_grid(columns, rows, len(labels), across, height + notes_height(lines))
    write_at_bottom(figure_of(grid[0]), flag_lines)
    write_at_bottom(figure_of(grid[0]), lines, colour=None, height=height)
    return grid


def _room(labels: Sequence[str]) -> tuple[int, int]:
    """Return the number of labels and the length of the longest one, to find the panel that needs most room."""
    return len(labels), max(map(len, labels))


def _measure_title(result: CKAResult) -> str:
    """Return the moment and the measure. The axes have the names of model and reference."""
    return ": ".join(filter(None, (short_moment_text(result.epoch, result.step), value_label(result))))


def _title(result: CKAResult) -> str:
    """Return the names of model and reference, and the epoch if it is known."""
    moment = short_moment_text(result.epoch, result.step)
    return (
        f"{result.model_name}, {moment}, and {result.reference_name}"
        if moment
        else f"{result.model_name} and {result.reference_name}"
    )
