"""`plot_convergence`: layer-by-epoch maps that show since when layers have converged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightning_cka.decisions.layer_convergence import LAST_STATE, Convergence
from lightning_cka.decisions.would_freeze import WouldFreeze
from lightning_cka.figures.cells import colour_bar, draw_cells
from lightning_cka.figures.colour_range import Bound, colour_range, has_nan, narrow_range_note
from lightning_cka.figures.flag_notes import FLAG, marked
from lightning_cka.figures.labels import axis_title, elided, fitting, plain, shared_value_label, short_labels
from lightning_cka.figures.layer_history import layer_history, moment_labels
from lightning_cka.figures.layout import figure_of
from lightning_cka.figures.own_cell import axes_size
from lightning_cka.figures.panel_grid import noted_grid, panels_across
from lightning_cka.figures.settled_marks import draw_marks
from lightning_cka.figures.ticks import set_ticks
from lightning_cka.figures.title_room import title_lengths
from lightning_cka.figures.trajectories import first_of, network_of, set_moment_titles
from lightning_cka.figures.user_style import font_size
from lightning_cka.hsic.measure import measure_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from lightning_cka.compare.result import CKAResult

_ACROSS = 3
"""Maximum number of maps side by side."""
_POINTS = 60.0
"""Points per inch of a row's height that a mark may take: a little less than all of them."""
_TITLE = 30
"""Maximum number of characters of the name of a reference in a title."""


@dataclass(frozen=True)
class _Map:
    """One map: a value for each layer and moment, and the moment from which on a layer has converged."""

    titles: Sequence[str]
    """Wordings of the title, the longest first."""
    values: NDArray[np.float64]
    moments: Sequence[str]
    unit: str | None = None
    """Title of the x axis. None: that of `set_moment_titles`."""
    marks: Sequence[tuple[float, float]] = ()
    """Column and row of each mark."""
    when: Sequence[tuple[int | None, int | None]] = ()
    """Epoch and step of each moment; empty if all maps have the same moments."""
    before: int = 0
    """Number of moments of the longest map that are before its own first one."""


@dataclass(frozen=True)
class _Drawn:
    """What the figure shows."""

    maps: list[_Map]
    layers: list[str]
    model: str
    value: str
    flagged: set[int]
    notes: list[str]
    flag_notes: list[str]


def plot_convergence(
    results: Mapping[str, CKAResult] | Convergence | WouldFreeze,
    *,
    cmap: str | Colormap = "magma",
    vmin: Bound = 0.0,
    vmax: Bound | None = None,
    flags: bool = True,
    colorbar: bool = True,
    titles: Sequence[str] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Draw layer-by-epoch maps: CKA with each reference, and with the same layer at the last epoch.

    Of a `Convergence`, there is a map for each reference, and one of CKA with the last state if the banks are known. A
    diamond marks the epoch since which a layer has converged, by the criterion of the map. Of a `WouldFreeze`, there is
    a map of CKA with the state some comparisons ago, with a diamond where a layer would have been frozen. Of
    trajectories, there are two maps without marks: CKA with the same layer at the first epoch, and at the last epoch. A
    layer that converges early gets bright early in the last map, as in Raghu et al. 2017 (SVCCA,
    https://arxiv.org/abs/1706.05806).

    Args:
        results: What `lightning_cka.convergence`, ``monitor.convergence()`` or `lightning_cka.would_freeze` returned;
            or results by layer, as `lightning_cka.trajectories` returns them; at least one.
        cmap: As in `plot_cka`.
        vmin: As in `plot_comparison`, for the values of all maps.
        vmax: As in `plot_comparison`, for the values of all maps.
        flags: Whether to mark flagged layers.
        colorbar: Whether to draw a colour bar.
        titles: The titles of the maps. None names the references, or the first and the last epoch.

    Returns:
        The figure, and the axes of the maps.

    Raises:
        ValueError: There is no result, the number of titles is wrong, or ``vmin`` or ``vmax`` is a text other than
            "auto".
        KeyError: ``cmap`` is not the name of a colour map.
    """
    drawn = _drawn(results)
    maps, count = drawn.maps, len(drawn.maps)
    if titles is not None and len(titles) != count:
        kind = "titles of both maps" if count == 2 else f"{count} titles"
        raise ValueError(f"expected {kind}, but got {len(titles)}")
    flagged = drawn.flagged if flags else set()
    labels, prefix = short_labels(drawn.layers)
    labels = marked(labels, flagged)
    values = [each.values for each in maps]
    low, high = colour_range(values, vmin, vmax)
    longest = max((each.moments for each in maps), key=lambda names: (len(names), max(map(len, names))))
    across = panels_across(longest, labels, count, _ACROSS, labels_once=True)
    notes = [*drawn.notes, *narrow_range_note(values, low, high)]
    reasons = drawn.flag_notes if flagged else []
    grid = noted_grid(longest, labels, count, across, notes, reasons, labels_once=True, tallest=9.0)
    wide, tall = title_lengths(grid)
    titles = [fitting(each.titles, wide) for each in maps] if titles is None else titles
    for place, (ax, each, title) in enumerate(zip(grid, maps, titles, strict=True)):
        image = draw_cells(ax, each.values, cmap, low, high)
        ax.set_xlim(-0.5 - each.before, len(longest) - 0.5 - each.before)  # The same epochs are at the same place.
        set_ticks(ax.yaxis, labels, flagged, names=drawn.layers)
        _finish(ax, each, len(labels))
        ax.set_title(plain(title), fontsize=font_size("title"))
        if place % across:
            ax.tick_params(labelleft=False)
        else:
            ax.set_ylabel(axis_title(drawn.model, prefix, max_length=tall))
    if colorbar:
        colour_bar(grid[across - 1], image, drawn.value, with_nan=has_nan(values), down_to=grid[-1])
    return figure_of(grid[0]), grid


def _finish(ax: Axes, each: _Map, count: int) -> None:
    """Label the x axis of a map of this number of layers, and draw its marks."""
    set_ticks(ax.xaxis, each.moments)
    set_moment_titles((ax.xaxis,), each.moments)
    if each.unit is not None:
        ax.set_xlabel(each.unit)
    draw_marks(ax, each.marks, room=_POINTS * axes_size(ax)[1] / max(1, count))


def _drawn(results: Mapping[str, CKAResult] | Convergence | WouldFreeze) -> _Drawn:
    if isinstance(results, WouldFreeze):
        return _of_frozen(results)
    return _of_convergence(results) if isinstance(results, Convergence) else _of_trajectories(results)


def _of_frozen(found: WouldFreeze) -> _Drawn:
    """Return one map, of CKA with the state some comparisons ago."""
    own, last = layer_history(found.results), found.results[-1]
    places = {each.layer: each.place for each in found.found}
    marks = [(float(place), row) for row, name in enumerate(own.names) if (place := places[name]) is not None]
    ago = f"{found.patience} comparison{'s' * (found.patience > 1)} ago"
    maps = [_Map(_titles(last.measure, f"the state {ago}"), own.values, *moment_labels(found.results), marks=marks)]
    notes = [f"◇ after this one, FreezeConverged(tolerance={found.tolerance:g}) would have frozen the layer"]
    flagged = {row for row, name in enumerate(own.names) if any(each.flags_of(name) for each in found.results)}
    flag_notes = [f"{FLAG} flagged at some moment, at which it is not frozen"]
    return _Drawn(maps, list(own.names), last.model_name, shared_value_label([last]), flagged, notes, flag_notes)


def _of_trajectories(results: Mapping[str, CKAResult]) -> _Drawn:
    """Return the two maps of trajectories: with the first moment and with the last one."""
    first = first_of(results)
    maps = [
        _Map(
            _titles(first.measure, _moment(first.layers[column])),
            np.array([result.matrix[:, column].numpy() for result in results.values()]),
            first.layers,
        )
        for column in (0, -1)
    ]
    flagged = {place for place, result in enumerate(results.values()) if result.flags}
    note = f"{FLAG} see the layer's own epoch by epoch map for why it is flagged"
    return _Drawn(maps, list(results), network_of(first), shared_value_label([first]), flagged, [], [note])


def _of_convergence(found: Convergence) -> _Drawn:
    """Return the maps of a `Convergence`, and what the marks mean."""
    maps, notes, level = _maps(found), [], f"{100 * found.level:g} %"
    if found.results:
        notes.append(
            f"◇ with a reference: from here on, the change to the last value is within ±{found.tolerance:g} ({level})"
        )
    if found.last is not None:
        notes.append(f"◇ with the {LAST_STATE}: from here on, CKA is above {1 - found.tolerance:g} ({level})")
    longest = max((list(each.when) for each in maps), key=len)
    maps = [replace(each, before=longest.index(each.when[0])) if each.when[0] in longest else each for each in maps]
    shown = [history[-1] for history in found.results.values()]
    model = shown[0].model_name if shown else "" if found.last is None else found.last.model_name
    value = "CKA" if found.last is not None else shared_value_label(shown)
    results = [result for history in found.results.values() for result in history]
    flagged = {row for row, name in enumerate(found.layers) if any(result.flags_of(name) for result in results)}
    flag_notes = [f"{FLAG} see the layer's heatmaps for its flags"]
    return _Drawn(maps, list(found.layers), model, value, flagged, notes, flag_notes)


def _maps(found: Convergence) -> list[_Map]:
    """Return a map for each reference, and one of the last state if that is known."""
    rows = {name: row for row, name in enumerate(found.layers)}
    maps = []
    for name, history in found.results.items():
        own = layer_history(history)
        values = np.full((len(rows), len(history)), np.nan)
        values[[rows[layer] for layer in own.names]] = own.values
        titles, when = _titles(history[-1].measure, elided(name, _TITLE)), [(each.epoch, each.step) for each in history]
        maps.append(_Map(titles, values, *moment_labels(history), marks=_marks(found, rows, name), when=when))
    if (last := found.last) is not None:
        values = np.full((len(rows), len(last.moments)), np.nan)
        values[[rows[layer] for layer in last.layers]] = last.values.numpy()
        titles, marks = _titles("cka", f"the {LAST_STATE}"), _marks(found, rows, LAST_STATE)
        maps.append(_Map(titles, values, last.moments, marks=marks, when=last.when))
    return maps


def _marks(found: Convergence, rows: Mapping[str, int], compared_with: str) -> list[tuple[float, float]]:
    return [
        (each.place, rows[each.layer])
        for each in found.found
        if each.compared_with == compared_with and each.place is not None
    ]


def _titles(measure: str, other: str) -> list[str]:
    """Return wordings of the title of a map, the longest first."""
    return [f"{measure_title(measure)} with {other}", f"with {other}"]


def _moment(name: str) -> str:
    """Return words for a moment of training, such as "epoch 3" for "3"."""
    if name == "init":
        return "the initial state"
    return f"epoch {name}" if name.isdigit() else name
