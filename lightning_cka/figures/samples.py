"""`plot_samples`: where the samples of a probe batch lie in layers, as classical MDS shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_cka.compare.bank_series import moment_words
from lightning_cka.compare.sample_maps import SampleMap, SampleMaps, sample_maps
from lightning_cka.compare.sample_marks import SampleMarks
from lightning_cka.figures.flag_notes import FLAG, notes_height, wrap_notes, write_at_bottom
from lightning_cka.figures.label_colours import LabelColours
from lightning_cka.figures.labels import elided, plain
from lightning_cka.figures.layout import figure_of
from lightning_cka.figures.own_cell import fit_into_cell, text_lengths
from lightning_cka.figures.sample_legend import legend_width, sample_legend, write_legend
from lightning_cka.figures.sample_panel import draw_map, draw_marks, reach
from lightning_cka.figures.square_grid import room_below, side_by_side, square_grid
from lightning_cka.figures.user_style import chosen_size, font_size, room_scale
from lightning_cka.runtime.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from lightning_cka.compare.bank_series import BankSource
    from lightning_cka.compare.result import CKAResult
    from lightning_cka.probe.layers import Layers
    from lightning_cka.probe.sample_labels import Labels
    from lightning_cka.probe.sample_selection import Exclude

_SIDE, _SMALL_SIDE = 3.4, 2.1
"""Sides in inches of a single panel, and of one of several."""
_MAX_ACROSS = 4
_MAX_MOMENTS = 6
"""Number of moments that are drawn unless ``epochs`` chooses others."""


def plot_samples(
    bank: BankSource | Sequence[BankSource],
    layer: Layers,
    labels: Labels | None = None,
    batch: int | None = None,
    epochs: Sequence[int | str] | None = None,
    *,
    result: CKAResult | None = None,
    marked: Iterable[int] = (),
    exclude: Exclude = None,
    across: int | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, list[Axes]]:
    """Draw where the samples of one probe batch lie in a layer, so that distances are kept as far as two axes can.

    The axes are the two directions with the largest variance (classical MDS of the layer's Gram matrix, the same as
    kernel PCA), with the share of the variance that each shows. The unit is the root mean square distance of the
    samples from their mean. For several moments, each picture is rotated or flipped to fit the next one (orthogonal
    Procrustes), and all have the same limits.

    Samples whose features are ``nan``, infinite or missing are left out, and a line below the picture names them. A
    layer without variance gives an empty panel that says so.

    Args:
        bank: A bank or its file; or several of one network on one probe set, in order of time; or the folder that
            `CKAMonitor(save_banks=True)` wrote.
        layer: The name of a layer, or patterns such as ``"net.*"`` for several panels. None: all layers.
        labels: The label of each sample, an integer or a text, for colours: a sequence that is indexed by sample
            numbers, such as the labels of the dataset, or a mapping from them. More than 40 different integers get a
            continuous colour map.
        batch: Index of the probe batch. None: that of the first marked or excluded sample; without any, the first.
        epochs: Epochs to draw; "init" is the moment before training. None: all banks, or 6 evenly spaced ones if there
            are more.
        result: A result whose flags mark samples: those of the model's layer, and of the input.
        marked: Numbers of more samples to mark.
        exclude: Numbers of samples to leave out, such as an outlier that hides the others.
        across: Maximum number of panels side by side. None: one for each moment if there are several layers, else 4.
        ax: Axes to draw a single panel into. None makes a new figure.

    Returns:
        The figure, and the axes of the panels: layer by layer, in order of time.

    Raises:
        ValueError: There is no such batch or epoch, a pattern matches no layer, layers or probe sets of the banks
            differ, a sample has no label, or ``ax`` is given for several panels.
        TypeError: A label is neither an integer nor a text.
        FileNotFoundError: A file or the folder does not exist.
    """
    marks = SampleMarks(marked, () if result is None else (result,))
    return draw_samples(bank, layer, labels, marks, batch=batch, epochs=epochs, exclude=exclude, across=across, ax=ax)


def draw_samples(
    bank: BankSource | Sequence[BankSource],
    layer: Layers,
    labels: Labels | None,
    marks: SampleMarks,
    *,
    batch: int | None = None,
    epochs: Sequence[int | str] | None = None,
    exclude: Exclude = None,
    across: int | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, list[Axes]]:
    """Draw samples as `plot_samples` does, with marks from several results."""
    maps = sample_maps(bank, layer, batch=batch, epochs=epochs, max_moments=_MAX_MOMENTS, marks=marks, exclude=exclude)
    return draw_sample_maps(maps, labels, across=across, ax=ax)


def draw_sample_maps(
    maps: SampleMaps,
    labels: Labels | None = None,
    *,
    across: int | None = None,
    ax: Axes | None = None,
    limits: Mapping[str, float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Draw maps of samples; see `plot_samples`.

    Args:
        maps: The maps.
        labels: Labels of the samples.
        across: Maximum number of panels side by side.
        ax: Axes of a single panel.
        limits: Half the length of both axes, by layer. None: `axis_limits` of the maps.

    Raises:
        ValueError: There are several panels, but ``ax`` is given.
    """
    panels, colours = maps.maps, LabelColours(labels, maps.sample_kind)
    if ax is not None and len(panels) > 1:
        raise ValueError(f"ax takes a single panel, but there are {len(panels)}: choose one layer and one epoch")
    legend = sample_legend(maps, colours)
    grid = _new_grid(maps, panels, min(len(panels), across or _across(maps)), legend) if ax is None else [ax]
    limits = axis_limits(maps) if limits is None else limits
    for each, panel in zip(panels, grid, strict=True):
        draw_map(panel, each, colours, limits[each.layer])
        title = _title(maps, each)
        if ax is not None:
            title = elided(title, text_lengths(ax)[1])
        panel.set_title(title, fontsize=0.9 * font_size("title"))
    write_legend(grid[side_by_side(grid) - 1], legend)
    if ax is not None:
        fit_into_cell(ax)
    for each, panel in zip(panels, grid, strict=True):
        draw_marks(panel, each)
    return figure_of(grid[0]), grid


def axis_limits(maps: SampleMaps) -> dict[str, float]:
    """Return half the length of both axes for each layer, so that the samples of all moments fit."""
    return {name: 1.1 * max(map(reach, row)) or 1.0 for name, row in maps.by_layer.items()}


def _across(maps: SampleMaps) -> int:
    """Return how many panels are side by side: all moments of a layer if there are several layers, else up to 4."""
    if maps.num_moments > 1 and len(maps.by_layer) > 1:
        return maps.num_moments
    lines = -(-len(maps.maps) // _MAX_ACROSS)
    return -(-len(maps.maps) // lines)


def _new_grid(
    maps: SampleMaps, panels: Sequence[SampleMap], across: int, legend: Sequence[tuple[Line2D | None, str]]
) -> list[Axes]:
    """Return axes in a new figure, with its title, with notes below them, and with room for the legend."""
    side = _SIDE if len(panels) == 1 else _SMALL_SIDE
    right = legend_width(legend, side)
    width = across * (side + 0.65) + right
    if (size := chosen_size()) is not None:
        width = size[0]
    lines = wrap_notes(_notes(maps, panels), width)
    above = 0.0 if len(panels) == 1 else 0.3 * room_scale()
    grid = square_grid(len(panels), across, side=side, above=above, below=notes_height(lines), right=right)
    figure = figure_of(grid[0])
    write_at_bottom(figure, lines, None, room_below(grid) - notes_height(lines))
    if above:
        names = list(maps.by_layer)
        title = maps.title if len(names) > 1 else f"{maps.title}: {names[0]}"
        figure.text(
            0.5,
            1 - 0.08 / figure.get_figheight(),
            plain(elided(title, 70)),
            ha="center",
            va="top",
            fontsize=font_size("title"),
        )
    return grid


def _title(maps: SampleMaps, each: SampleMap) -> str:
    """Return the layer and the moment, as far as the title of the figure does not have them."""
    moment = moment_words(each.moment)
    if maps.num_moments > 1 and len(maps.by_layer) == 1:
        return moment
    layer = plain(elided(each.layer, 28))
    has_moment = maps.num_moments > 1 or len(maps.by_layer) == 1
    return f"{layer}, {moment}" if has_moment and moment else layer


def _notes(maps: SampleMaps, panels: Sequence[SampleMap]) -> list[str]:
    count = max(len(each.samples) for each in panels)
    notes = [f"Probe batch {maps.batch}, {count} samples. Unit: RMS distance from the mean."]
    if maps.elsewhere:
        listed = shortened(list(map(str, maps.elsewhere)))
        notes.append(f"{FLAG} In other probe batches: {maps.sample_kind} {listed}.")
    if maps.excluded:
        notes.append(f"Without {maps.sample_kind} {shortened(list(map(str, maps.excluded)))}.")
    left_out: dict[tuple[int, ...], list[str]] = {}
    for each in panels:
        if each.left_out and not each.problem:
            left_out.setdefault(each.left_out, []).append(_title(maps, each))
    for samples, places in left_out.items():
        where = "" if len(places) == len(panels) else f" in {shortened(places, 6)}"
        listed = shortened(list(map(str, samples)))
        notes.append(f"Left out{where} (nan, infinite or missing): {maps.sample_kind} {listed}.")
    return notes
