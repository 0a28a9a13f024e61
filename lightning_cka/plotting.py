"""Figures of CKA results. Never through pyplot, whose global state is the user's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

    from lightning_cka.result import CKAResult

MAX_TICKS = 40
_MAX_LABEL = 32
_CHARACTER = 0.065
"""Mean width in inches of a character of a tick label."""
_UNDEFINED = "#c8ccd0"


def plot_cka(
    result: CKAResult,
    ax: Axes | None = None,
    *,
    add_text: bool = False,
    cmap: str = "magma",
    vmin: float = 0.0,
    vmax: float = 1.0,
) -> tuple[Figure, Axes]:
    """Heatmap of a result: the model's layers upwards, the reference's to the right.

    Args:
        result: what to draw. ``nan`` cells are grey.
        ax: where; None: a new figure.
        add_text: write the values into the cells.
        cmap: a matplotlib colour map.
        vmin: the value of its lower end; smaller values have the same colour.
        vmax: the value of its upper end.

    Returns:
        The figure and the axes. The figure is not known to pyplot: save it with ``figure.savefig``.
    """
    rows, row_prefix = short_labels(result.layers)
    columns, column_prefix = short_labels(result.reference_layers)
    if ax is None:
        ax = _new_axes(columns, rows)
    values = result.matrix.numpy()
    image = _draw(ax, values, cmap, vmin, vmax)
    _set_ticks(ax, columns, rows)
    ax.set_xlabel(_axis_title(result.reference_name, column_prefix))
    ax.set_ylabel(_axis_title(result.model_name, row_prefix))
    where = (f"{word} {value}" for word, value in (("epoch", result.epoch), ("step", result.step)) if value is not None)
    ax.set_title(", ".join(where), fontsize=10)
    if add_text:
        _write_values(ax, image, values)
    return _figure_of(ax), ax


def plot_drift(results: Sequence[CKAResult], ax: Axes | None = None, *, cmap: str = "magma") -> tuple[Figure, Axes]:
    """Map of each layer's CKA with the reference's layer of the same name, over the results.

    Args:
        results: of one reference, in order; at least one, with same-named layers.
        ax: where; None: a new figure.
        cmap: a matplotlib colour map, from 0 to 1.

    Returns:
        The figure and the axes.

    Raises:
        ValueError: there is no result, or no same-named layer.
    """
    history = [result.same_named() for result in results]
    if not history or not history[-1]:
        raise ValueError("a drift map needs at least one result with layers of the same name on both sides")
    last = results[-1]
    names = list(history[-1])
    nan = float("nan")
    values = np.array([[diagonal.get(name, nan) for diagonal in history] for name in names])
    rows, prefix = short_labels(names)
    epochs = [result.epoch for result in results]
    by_step = len(set(epochs)) < len(epochs)
    columns = [str(result.step if by_step else result.epoch) for result in results]
    if ax is None:
        ax = _new_axes(columns, rows)
    _draw(ax, values, cmap, 0.0, 1.0)
    _set_ticks(ax, columns, rows)
    ax.set_xlabel("step" if by_step else "epoch")
    ax.set_ylabel(_axis_title(last.model_name, prefix))
    ax.set_title(f"CKA with {_elided(last.reference_name)}", fontsize=10)
    return _figure_of(ax), ax


def render(figure: Figure) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The figure as ``(height, width, 3)`` uint8."""
    canvas: Any = FigureCanvasAgg(figure)  # Its methods have no types.
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def short_labels(names: Sequence[str]) -> tuple[list[str], str]:
    """Layer names without the dotted prefix that all share, long ones cut in the middle; and that prefix."""
    shared = zip(*(name.split(".")[:-1] for name in names), strict=False)
    prefix = ".".join(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, shared))
    labels = [name[len(prefix) + 1 :] if prefix else name for name in names]
    return [_elided(label) for label in labels], prefix


def _figure_of(ax: Axes) -> Figure:
    figure = ax.figure
    while not isinstance(figure, Figure):  # A subfigure.
        figure = figure.figure
    return figure


def _elided(text: str) -> str:
    half = _MAX_LABEL // 2
    return text if len(text) <= _MAX_LABEL else f"{text[: half - 1]}…{text[-half:]}"


def _axis_title(name: str, prefix: str) -> str:
    title = f"{_elided(name)}: {prefix}.*" if prefix else _elided(name)
    return title if len(title) <= 40 else f"{_elided(name)}: …"


def _new_axes(columns: Sequence[str], rows: Sequence[str]) -> Axes:
    """Axes with cells as square as the bounds on size allow, and room for the labels."""
    width, height = _span(len(columns)), _span(len(rows))
    left = 0.5 + _CHARACTER * max(map(len, rows))
    bottom = 0.45 + (_CHARACTER * max(map(len, columns)) if _overlap(columns) else 0.15)
    right, top = 0.95, 0.4
    total_width, total_height = left + width + right, bottom + height + top
    figure = Figure(figsize=(total_width, total_height), dpi=120)
    FigureCanvasAgg(figure)
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def _span(count: int) -> float:
    """Length in inches of an axis of that many cells."""
    return min(max(0.3 * count, 2.4), 9.0)


def _overlap(labels: Sequence[str]) -> bool:
    """Whether labels along the x axis would overlap if they were not turned."""
    return min(len(labels), MAX_TICKS) * (max(map(len, labels)) + 1) * _CHARACTER > _span(len(labels))


def _draw(ax: Axes, values: np.ndarray[Any, Any], cmap: str, vmin: float, vmax: float) -> AxesImage:
    colours = colormaps[cmap].with_extremes(bad=_UNDEFINED)
    image = ax.imshow(
        np.ma.masked_invalid(values),
        origin="lower",
        cmap=colours,
        vmin=vmin,
        vmax=vmax,
        aspect="auto",
        interpolation="nearest",
    )
    # A colour bar of fixed width beside the axes, however wide these are.
    width = 0.14 / (ax.get_position().width * _figure_of(ax).get_figwidth())
    bar = ax.inset_axes((1 + width, 0.0, width, 1.0))
    ax.figure.colorbar(image, cax=bar, label="CKA")
    bar.tick_params(labelsize=8)
    if np.isnan(values).any():
        bar.text(0.5, -0.02, "grey: nan", transform=bar.transAxes, ha="center", va="top", fontsize=8)
    return image


def _set_ticks(ax: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    for axis, labels in ((ax.xaxis, columns), (ax.yaxis, rows)):
        places = range(0, len(labels), -(-len(labels) // MAX_TICKS))
        axis.set_ticks(list(places), [labels[place] for place in places], fontsize=8)
    if _overlap(columns):
        ax.tick_params(axis="x", rotation=90)


def _write_values(ax: Axes, image: AxesImage, values: np.ndarray[Any, Any]) -> None:
    size = max(3.0, min(8.0, 160 / max(values.shape)))
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        ax.text(
            column, row, f"{value:.2f}", ha="center", va="center", fontsize=size, color="white" if dark else "black"
        )
