"""Bring figures to the loggers of a Trainer, and to files."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axis import XAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image

from lightning_cka.runtime.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.image import AxesImage


def write_picture(path: Path, pixels: Pixels) -> None:
    """Write a PNG file, whole or not at all; its folder is made if need be.

    Raises:
        OSError: it cannot be written.
    """
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    write_atomically(path, content.getvalue())


Array = np.ndarray[Any, Any]


Pixels = np.ndarray[Any, np.dtype[np.uint8]]


MAX_TICKS = 40


MAX_LABEL = 32
"""Characters of a layer's name; of longer ones the middle is left out."""


FLAG = "⚠"
"""Beside the label of a layer that is not to be trusted."""


FLAG_COLOUR = "#b3261e"


_MAX_PANEL = 3.6
"""Inches of a panel's side."""


_CHARACTER = 0.065
"""Mean width in inches of a character of a tick label."""


_LEGEND_CHARACTER = 0.06


_UNDEFINED = "#c8ccd0"


def render(figure: Figure) -> Pixels:
    """The figure as ``(height, width, 3)`` uint8."""
    canvas: Any = FigureCanvasAgg(figure)  # Its methods have no types.
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def short_labels(names: Sequence[str], max_length: int = MAX_LABEL) -> tuple[list[str], str]:
    """Layer names without the dotted prefix that all share, and that prefix.

    Long ones are cut in the middle, but by no more than leaves them distinct.
    """
    shared = zip(*(name.split(".")[:-1] for name in names), strict=False)
    prefix = ".".join(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, shared))
    labels = [name[len(prefix) + 1 :] if prefix else name for name in names]
    longest = max(map(len, labels), default=0)
    for length in range(max_length, max(longest, max_length) + 1):
        shown = [elided(label, length) for label in labels]
        if len(set(shown)) == len(set(labels)):
            break
    return [plain(label) for label in shown], prefix


def elided(text: str, max_length: int = MAX_LABEL) -> str:
    """The text, cut in the middle if it is too long for a label."""
    half = max_length // 2
    return text if len(text) <= max_length else f"{text[: half - 1]}…{text[-half:]}"


def plain(text: str) -> str:
    """The text as matplotlib shows it as it is: what is between dollar signs would be mathematics, or an error."""
    return re.sub(r"(?<!\\)\$", r"\\$", text)


def axis_title(name: str, prefix: str) -> str:
    """The model's name, and the prefix that its layers share."""
    title = f"{elided(name)}: {prefix}.*" if prefix else elided(name)
    return plain(title if len(title) <= 40 else f"{elided(name)}: …")


def figure_of(ax: Axes) -> Figure:
    """The figure, also of axes in a subfigure."""
    figure = ax.figure
    while not isinstance(figure, Figure):
        figure = figure.figure
    return figure


def new_axes(columns: Sequence[str], rows: Sequence[str], below: float = 0.0, legend: Sequence[str] = ()) -> Axes:
    """Axes with cells as square as the bounds on size allow, and room for the labels.

    Args:
        columns: labels of the x axis.
        rows: labels of the y axis.
        below: inches of room under the x axis' title.
        legend: labels of lines, beside the axes.
    """
    width, height = _span(len(columns)), _span(len(rows))
    left, bottom = _left(rows), label_room(columns) + below
    right, top = max(0.95, 0.45 + _LEGEND_CHARACTER * max(map(len, legend), default=0)), 0.4
    total_width, total_height = left + width + right, bottom + height + top
    figure = Figure(figsize=(total_width, total_height), dpi=120)
    FigureCanvasAgg(figure)
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def axes_below(ax: Axes, height: float, gap: float) -> Axes:
    """Axes of the same width under ``ax``, for which its figure grows; all lengths are in inches."""
    figure = figure_of(ax)
    width, old = figure.get_size_inches()
    box = ax.get_position()
    new = old + height + gap
    figure.set_size_inches(width, new)
    lowest = box.y0 * old
    ax.set_position((box.x0, (lowest + height + gap) / new, box.width, box.height * old / new))
    return figure.add_axes((box.x0, lowest / new, box.width, height / new))


def label_room(columns: Sequence[str]) -> float:
    """Inches that the labels and the title of the x axis take."""
    return 0.45 + (_CHARACTER * max(map(len, columns)) if _overlap(columns) else 0.15)


def _left(rows: Sequence[str]) -> float:
    return 0.5 + _CHARACTER * max(map(len, rows))


def _span(count: int) -> float:
    """Length in inches of an axis of that many cells."""
    return min(max(0.3 * count, 2.4), 9.0)


def _overlap(labels: Sequence[str]) -> bool:
    """Whether labels along the x axis would overlap if they were not turned."""
    return min(len(labels), MAX_TICKS) * (max(map(len, labels)) + 1) * _CHARACTER > _span(len(labels))


def draw_cells(ax: Axes, values: Array, cmap: str, vmin: float, vmax: float, hidden: Array | None = None) -> AxesImage:
    """Cells from the lower left, ``nan`` in grey, those that are ``hidden`` not at all."""
    colours = colormaps[cmap].with_extremes(bad=_UNDEFINED)
    style: dict[str, Any] = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    image = ax.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=vmin, vmax=vmax, **style)
    if hidden is not None:
        ax.imshow(np.ma.masked_where(~hidden, np.zeros(values.shape)), cmap=ListedColormap(["white"]), **style)
    return image


def colour_bar(ax: Axes, image: AxesImage, label: str, *, with_nan: bool) -> None:
    """A bar of fixed width beside the axes, however wide these are."""
    width = 0.14 / (ax.get_position().width * figure_of(ax).get_figwidth())
    bar = ax.inset_axes((1 + width, 0.0, width, 1.0))
    ax.figure.colorbar(image, cax=bar, label=label)
    bar.tick_params(labelsize=8)
    if with_nan:
        bar.text(0.5, -0.02, "grey: nan", transform=bar.transAxes, ha="center", va="top", fontsize=8)


def new_grid(columns: Sequence[str], rows: Sequence[str], count: int, across: int, below: float) -> list[Axes]:
    """Axes of ``count`` panels in lines of ``across``, with room for the labels of each, and a bar behind the last.

    Args:
        columns: labels of the x axis, the longest of any panel.
        rows: labels of the y axis, likewise.
        count: of panels.
        across: of panels in a line.
        below: inches of room under all.
    """
    width, height = (min(_span(len(labels)), _MAX_PANEL) for labels in (columns, rows))
    left, bottom, right, top = _left(rows), label_room(columns) + 0.1, 0.15, 0.3
    across = min(count, across)
    lines = -(-count // across)
    step_x, step_y = left + width + right, bottom + height + top
    total_width, total_height = across * step_x + 0.8, lines * step_y + below
    figure = Figure(figsize=(total_width, total_height), dpi=120)
    FigureCanvasAgg(figure)
    return [
        figure.add_axes(
            (
                ((place % across) * step_x + left) / total_width,
                (below + (lines - 1 - place // across) * step_y + bottom) / total_height,
                width / total_width,
                height / total_height,
            )
        )
        for place in range(count)
    ]


def set_ticks(axis: Axis, labels: Sequence[str], flagged: Collection[int] = (), max_ticks: int = MAX_TICKS) -> None:
    """Label the cells along an axis, of many some, but always those that are flagged."""
    places = tick_places(len(labels), flagged, max_ticks)
    axis.set_ticks(places, [labels[place] for place in places], fontsize=8)
    for place, text in zip(places, axis.get_ticklabels(), strict=True):
        if place in flagged:
            text.set_color(FLAG_COLOUR)
    if isinstance(axis, XAxis) and _overlap(labels):
        axis.set_tick_params(rotation=90)


def tick_places(count: int, flagged: Collection[int] = (), max_ticks: int = MAX_TICKS) -> list[int]:
    """Evenly spaced places; those that are flagged push aside the ones that they would overlap."""
    step = -(-count // max_ticks)
    crowded = len(flagged) > max_ticks // 2
    kept = set() if crowded else {place for place in flagged if 0 <= place < count}
    regular = (place for place in range(0, count, step) if all(abs(place - other) >= step for other in kept))
    return sorted(kept | set(regular))


def write_cells(ax: Axes, image: AxesImage, values: Array, errors: Array | None, hidden: Array | None = None) -> None:
    """Write the values into the cells that are not hidden, with their standard errors if there are any."""
    size = max(3.0, min(8.0, 160 / max(values.shape))) * (1.0 if errors is None else 0.8)
    for (row, column), value in np.ndenumerate(values):
        if hidden is not None and hidden[row, column]:
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        text = f"{value:.2f}" if errors is None else f"{value:.3f}\n±{errors[row, column]:.3f}"
        colour = "white" if dark else "black"
        ax.text(column, row, text, ha="center", va="center", fontsize=size, color=colour, linespacing=1)
