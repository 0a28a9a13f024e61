"""The heatmap of a CKA result."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightning_cka.compare.flag_messages import flag_summary
from lightning_cka.figures.canvas import (
    FLAG,
    FLAG_COLOUR,
    MAX_LABEL,
    MAX_TICKS,
    axis_title,
    colour_bar,
    draw_cells,
    figure_of,
    label_room,
    new_axes,
    plain,
    set_ticks,
    short_labels,
    write_cells,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from lightning_cka.compare.result import CKAResult


_NOTE_LINE = 0.14
"""Height in inches of a line of the legend of flags."""


def plot_cka(
    result: CKAResult,
    ax: Axes | None = None,
    *,
    add_text: bool = False,
    cmap: str = "magma",
    vmin: float = 0.0,
    vmax: float = 1.0,
    triangle: bool = False,
    max_ticks: int = MAX_TICKS,
    max_label: int = MAX_LABEL,
) -> tuple[Figure, Axes]:
    """Heatmap of a result: the model's layers upwards, the reference's to the right.

    Layers whose values are not to be trusted have a red label with a warning sign, and a line below says why.

    Args:
        result: what to draw. ``nan`` cells are grey.
        ax: where; None: a new figure.
        add_text: write the values into the cells, with their standard errors where these are known.
        cmap: a matplotlib colour map.
        vmin: the value of its lower end; smaller values have the same colour.
        vmax: the value of its upper end.
        triangle: of a symmetric matrix, of a model with itself, draw each pair once.
        max_ticks: of each axis, of layers that are not flagged.
        max_label: number of characters of a layer's name; of longer ones the middle is left out.

    Returns:
        The figure and the axes. The figure is not known to pyplot: save it with ``figure.savefig``.

    Raises:
        ValueError: a triangle of a matrix that is not symmetric.
    """
    style = HeatmapStyle(add_text, cmap, vmin, vmax, triangle, max_ticks, max_label)
    rows, columns, notes = style.labels(result)
    if ax is None:
        # Nearly as wide as the figure will be; a line more or less does no harm.
        wrapped = wrap_notes(notes, figure_of(new_axes(columns, rows)).get_figwidth())
        ax = new_axes(columns, rows, below=notes_height(wrapped))
    else:
        wrapped = wrap_notes(notes, figure_of(ax).get_figwidth())
    image = style.draw(result, ax)
    colour_bar(ax, image, value_label(result), with_nan=bool(result.matrix.isnan().any()))
    where = (f"{word} {value}" for word, value in (("epoch", result.epoch), ("step", result.step)) if value is not None)
    ax.set_title(", ".join(where), fontsize=10)
    if wrapped:
        _write_notes(ax, wrapped, label_room(columns))
    return figure_of(ax), ax


@dataclass(frozen=True)
class HeatmapStyle:
    """How heatmaps are drawn; see `plot_cka`."""

    add_text: bool = False
    cmap: str = "magma"
    vmin: float = 0.0
    vmax: float = 1.0
    triangle: bool = False
    max_ticks: int = MAX_TICKS
    max_label: int = MAX_LABEL

    def labels(self, result: CKAResult) -> tuple[list[str], list[str], list[str]]:
        """Of rows and columns, flagged ones marked; and what the flags mean."""
        flagged = _flagged(result)
        rows, columns = (
            marked(short_labels(names, self.max_label)[0], places)
            for names, places in zip((result.layers, result.reference_layers), flagged, strict=True)
        )
        notes = [] if result.diagnostics is None else flag_summary(result.flags, result.diagnostics.sample_kind)
        return rows, columns, [f"{FLAG} {note}" for note in notes]

    def draw(self, result: CKAResult, ax: Axes) -> AxesImage:
        """Cells, ticks and titles of the axes."""
        if self.triangle and not result.self_comparison:
            raise ValueError("triangle=True draws half of a symmetric matrix, but this one compares two models")
        rows, columns, _ = self.labels(result)
        flagged_rows, flagged_columns = _flagged(result)
        values = result.matrix.numpy()
        hidden = np.triu(np.ones(values.shape, dtype=bool), 1) if self.triangle else None
        image = draw_cells(ax, values, self.cmap, self.vmin, self.vmax, hidden)
        set_ticks(ax.xaxis, columns, flagged_columns, self.max_ticks)
        set_ticks(ax.yaxis, rows, flagged_rows, self.max_ticks)
        ax.set_xlabel(axis_title(result.reference_name, short_labels(result.reference_layers)[1]))
        ax.set_ylabel(axis_title(result.model_name, short_labels(result.layers)[1]))
        if self.add_text:
            errors = result.standard_error
            known = errors is not None and not errors.isnan().all()
            write_cells(ax, image, values, errors.numpy() if errors is not None and known else None, hidden)
        return image


def _flagged(result: CKAResult) -> tuple[set[int], set[int]]:
    """Rows and columns whose layers are flagged."""
    rows = {result.layers.index(flag.layer) for flag in result.flags if not flag.of_reference}
    columns = {result.reference_layers.index(flag.layer) for flag in result.flags if flag.of_reference}
    return rows, rows if result.self_comparison else columns


def marked(labels: Sequence[str], flagged: set[int]) -> list[str]:
    """Labels, with a warning sign at those that are flagged."""
    return [f"{FLAG} {label}" if place in flagged else label for place, label in enumerate(labels)]


def wrap_notes(notes: Sequence[str], width: float) -> list[str]:
    """Lines that fit a figure of that width in inches."""
    lines = (textwrap.wrap(note, int(width / 0.068), subsequent_indent="    ") for note in notes)
    return [plain(line) for wrapped in lines for line in wrapped]


def notes_height(lines: Sequence[str]) -> float:
    """Inches that the lines take."""
    return _NOTE_LINE * (len(lines) + 0.5) if lines else 0.0


def _write_notes(ax: Axes, lines: Sequence[str], room: float) -> None:
    """Lines at the left edge of the figure, under the labels and the title of the x axis."""
    figure, box = figure_of(ax), ax.get_position()
    inches = box.height * figure.get_figheight()
    left = -(box.x0 * figure.get_figwidth() - 0.1) / (box.width * figure.get_figwidth())
    ax.text(
        left,
        -(room - 0.05) / inches,
        "\n".join(lines),
        transform=ax.transAxes,
        va="top",
        fontsize=7,
        color=FLAG_COLOUR,
        linespacing=1.25,
    )


def value_label(result: CKAResult) -> str:
    """CKA, with the kernel and the estimator where they are not the usual ones."""
    kinds = [*([] if result.kernel == "linear" else [result.kernel]), *([] if result.unbiased else ["biased"])]
    return f"CKA ({', '.join(kinds)})" if kinds else "CKA"
