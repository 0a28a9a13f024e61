"""Many models side by side: their CKA as a heatmap in a clustered order, a dendrogram, and a map of the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib import colormaps, rcParams
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from lightning_cka.compare.intervals import too_few_batches
from lightning_cka.figures.cell_text import write_values
from lightning_cka.figures.cells import colour_bar, draw_cells
from lightning_cka.figures.colour_range import Bound, colour_range, narrow_range_note
from lightning_cka.figures.flag_notes import notes_height, wrap_notes, write_below_axes, write_short_notes
from lightning_cka.figures.labels import MAX_LABEL, elided, fitting, plain, value_label
from lightning_cka.figures.layout import figure_of, figure_width, label_room, new_axes
from lightning_cka.figures.own_cell import axes_size, fit_into_cell, text_lengths
from lightning_cka.figures.sample_panel import axis_label, write_beside
from lightning_cka.figures.ticks import set_ticks
from lightning_cka.figures.title_room import title_lengths
from lightning_cka.figures.user_style import font_size
from lightning_cka.hsic.classical_mds import classical_mds
from lightning_cka.hsic.measure import measure_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from lightning_cka.compare.result import CKAResult
    from lightning_cka.decisions.model_comparison import ModelComparison

_TREE_HEIGHT = 0.75
"""Height in inches of the dendrogram above the heatmap."""
_MOST_NAMES = 8
"""Number of models up to which the map has their names. More models have numbers there and in the heatmap."""
_LARGEST_MAP = 4.0
"""Longest side of the map in inches."""
_MARGIN = 0.15
"""Distance in inches between the map and the edge of the figure."""
_LEAST_LAYER = 8
"""Smallest number of characters of a layer's name in a title."""
_MAP_GAP = 0.6
"""Distance in inches between the colour bar and the map, for the labels of the map."""


def plot_models(
    comparison: ModelComparison,
    ax: Axes | None = None,
    *,
    add_text: bool = True,
    cmap: str | Colormap = "magma",
    vmin: Bound = 0.0,
    vmax: Bound | None = None,
    colorbar: bool = True,
    title: str | None = None,
) -> tuple[Figure, Axes]:
    """Draw the CKA of many models with each other: heatmap, dendrogram and map.

    Models are in the order of an average linkage with the distance 1 - CKA: those that are alike are neighbours. The
    dendrogram above the heatmap shows at which distance they are joined. In the map at the right (classical
    multidimensional scaling), the squared distance of two models is about 2 - 2 CKA. If a value is ``nan``, models have
    the given order, and there is the heatmap alone. In your own axes, there is the heatmap alone, too.

    Args:
        comparison: The result of `lightning_cka.compare_many`.
        ax: Axes to draw into. None makes a new figure.
        add_text: Whether to write the values, with their standard errors, into cells that have room for them.
        cmap: A matplotlib colour map or its name.
        vmin: As in `plot_cka`.
        vmax: As in `plot_cka`.
        colorbar: Whether to draw a colour bar.
        title: Title of the figure. None says what the mean is over.

    Returns:
        The figure and the axes of the heatmap.

    Raises:
        ValueError: ``vmin`` or ``vmax`` is a text other than "auto".
        KeyError: ``cmap`` is not the name of a colour map.
    """
    tree = None if bool(comparison.matrix.isnan().any()) else _tree(comparison)
    order = np.arange(len(comparison.names)) if tree is None else tree.order
    matrix = _Matrix.of(comparison, order, cmap, (vmin, vmax), add_text=add_text)
    bar_title = value_label(_first(comparison)) if colorbar else None
    if ax is not None:
        longest, wide, _ = text_lengths(ax)
        matrix.draw(ax, longest, bar_title)
        ax.set_title(_title(comparison, title, wide), fontsize=font_size("title"))
        notes = matrix.notes(short=True)
        write_short_notes(ax, [(fitting([note, note.split(":")[0]], wide * 3 // 2), None) for note in notes])
        fit_into_cell(ax, again=partial(matrix.set_ticks, ax, longest))
        return figure_of(ax), ax
    labels = matrix.labels(MAX_LABEL)
    above, beside = (0.0, 0.0) if tree is None else (_TREE_HEIGHT, _MAP_GAP + _map_side(len(order)) + _MARGIN)
    lines = wrap_notes(matrix.notes(short=False), figure_width(labels, labels, beside=beside))
    ax = new_axes(labels, labels, below=notes_height(lines), above=above, beside=beside)
    matrix.draw(ax, MAX_LABEL, bar_title)
    if lines:
        write_below_axes(ax, lines, label_room(labels, axes_size(ax)[0]), colour=None)
    top = ax
    if tree is not None:
        _add_map(ax, comparison.matrix[order][:, order], matrix.names)
        top = _draw_tree(ax, tree, f"1 − {measure_title(_first(comparison).measure)}")
    top.set_title(_title(comparison, title, title_lengths([ax])[0]), fontsize=font_size("title"))
    return figure_of(ax), ax


@dataclass(frozen=True)
class _Matrix:
    """The heatmap of values and errors ``(M, M)`` of models in the order of their names. No errors: no texts."""

    values: NDArray[np.float64]
    errors: NDArray[np.float64] | None
    names: Sequence[str]
    cmap: str | Colormap
    low: float
    high: float

    @classmethod
    def of(
        cls,
        comparison: ModelComparison,
        order: NDArray[np.int64],
        cmap: str | Colormap,
        bounds: tuple[Bound, Bound | None],
        *,
        add_text: bool,
    ) -> _Matrix:
        values, errors = (each.numpy()[np.ix_(order, order)] for each in (comparison.matrix, comparison.standard_error))
        if too_few_batches(comparison.effective_batches):
            errors = np.full_like(errors, np.nan)
        names = _numbered([comparison.names[place] for place in order])
        return cls(values, errors if add_text else None, names, cmap, *colour_range([values], *bounds))

    def notes(self, *, short: bool) -> list[str]:
        return narrow_range_note([self.values], self.low, self.high, short=short)

    def labels(self, max_length: int) -> list[str]:
        return [plain(elided(name, max_length)) for name in self.names]

    def draw(self, ax: Axes, max_label: int, bar_title: str | None) -> None:
        """Draw cells, texts, ticks and the colour bar. ``bar_title`` None: there is no colour bar."""
        image = draw_cells(ax, self.values, self.cmap, self.low, self.high)
        self.set_ticks(ax, max_label)
        if self.errors is not None:
            write_values(ax, image, self.values, None if np.isnan(self.errors).all() else self.errors)
        if bar_title is not None:
            colour_bar(ax, image, bar_title, with_nan=bool(np.isnan(self.values).any()))

    def set_ticks(self, ax: Axes, max_label: int) -> None:
        for axis in (ax.xaxis, ax.yaxis):
            set_ticks(axis, self.labels(max_label))


def _first(comparison: ModelComparison) -> CKAResult:
    return next(iter(comparison.by_layer.values()))


def _title(comparison: ModelComparison, title: str | None, max_length: int) -> str:
    if title is not None:
        return plain(title)
    name, layers = value_label(_first(comparison)), list(comparison.by_layer)
    what = f"mean of {len(layers)} layers" if len(layers) > 1 else layers[0]
    wordings = [f"{name} of {len(comparison.names)} models, {what}", f"{name}, {what}"]
    if len(layers) == 1 and (room := max_length - len(f"{name}, ")) >= _LEAST_LAYER:
        wordings.append(f"{name}, {elided(what, room)}")
    return plain(fitting([*wordings, name], max_length))


class _Tree(NamedTuple):
    """A dendrogram."""

    order: NDArray[np.int64]
    """The models from left to right."""
    places: NDArray[np.float64]
    """Places ``(M - 1, 4)`` of the corners of the joins, with the first model at 0."""
    heights: NDArray[np.float64]
    """Distances ``(M - 1, 4)`` of these corners, 1 - CKA."""


def _tree(comparison: ModelComparison) -> _Tree:
    from scipy.cluster.hierarchy import dendrogram

    found = dendrogram(comparison.linkage(), no_plot=True)
    # The leaves of scipy are at 5, 15, 25, ...
    return _Tree(np.array(found["leaves"]), (np.array(found["icoord"]) - 5) / 10, np.array(found["dcoord"]))


def _draw_tree(ax: Axes, tree: _Tree, title: str) -> Axes:
    """Draw the dendrogram above the heatmap, with a title of its distances, and return its axes."""
    figure, box = figure_of(ax), ax.get_position()
    height = figure.get_size_inches()[1]
    gap = 0.06 / height
    upper = figure.add_axes((box.x0, box.y1 + gap, box.width, _TREE_HEIGHT / height - gap))
    for x, y in zip(tree.places, tree.heights, strict=True):
        upper.plot(x, y, color=rcParams["text.color"], linewidth=1.0, clip_on=False)
    upper.set_xlim(ax.get_xlim())
    upper.set_ylim(0.0, float(tree.heights.max()) or 1.0)
    upper.set_ylabel(title, fontsize=font_size("tick"))
    upper.yaxis.set_major_locator(MaxNLocator(2))
    upper.tick_params(axis="x", bottom=False, labelbottom=False)
    upper.tick_params(axis="y", labelsize=font_size("note"))
    upper.spines[["top", "right", "bottom"]].set_visible(False)
    return upper


def _numbered(names: Sequence[str]) -> list[str]:
    """Return the names; with numbers, if there are too many for a map with names."""
    return list(names) if len(names) <= _MOST_NAMES else [f"{name} {n}" for n, name in enumerate(names, 1)]


def _map_side(count: int) -> float:
    """Return the length of a side of the map in inches."""
    return min(max(0.3 * count, 2.4), _LARGEST_MAP)


def _add_map(ax: Axes, matrix: Tensor, names: Sequence[str]) -> None:
    """Draw a map of the models beside the heatmap."""
    try:
        found = classical_mds(matrix)
    except ValueError:  # All models are equal.
        return
    figure, box = figure_of(ax), ax.get_position()
    width, height = figure.get_size_inches()
    side = min(_map_side(len(names)), box.height * height)
    place = ((width - side - _MARGIN) / width, box.y1 - side / height, side / width, side / height)
    beside = figure.add_axes(place)
    limit = 1.25 * float(found.coordinates.abs().max())
    beside.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    x, y = found.coordinates.T.numpy()
    beside.scatter(x, y, s=14, color=colormaps["magma"](0.4), clip_on=False, zorder=3)
    texts = [name.split(" ")[-1] if len(names) > _MOST_NAMES else plain(elided(name)) for name in names]
    places = {text: row.tolist() for text, row in zip(texts, found.coordinates, strict=True)}
    write_beside(beside, places, rcParams["text.color"], radius=2.0)
    for axis in (beside.xaxis, beside.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    beside.tick_params(labelsize=font_size("note"), length=2)
    room = title_lengths([beside])
    labels = [axis_label(number, share) for number, share in enumerate(found.shares.tolist(), 1)]
    across, up = (fitting([each, each.removesuffix(" of variance")], room[n]) for n, each in enumerate(labels))
    beside.set_xlabel(across, fontsize=font_size("tick"))
    beside.set_ylabel(up, fontsize=font_size("tick"))
    beside.set_title(fitting(["map of the models", "map"], room[0]), fontsize=font_size("title"))
