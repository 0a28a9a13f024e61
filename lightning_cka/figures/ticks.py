"""Choose which cells of an axis get a label, and draw these labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from matplotlib.axis import XAxis

from lightning_cka.figures.flag_notes import colour_on
from lightning_cka.figures.layout import MAX_TICKS, figure_of, labels_overlap, most_ticks
from lightning_cka.figures.own_cell import axes_size
from lightning_cka.figures.user_style import font_size

if TYPE_CHECKING:
    from matplotlib.axis import Axis


def set_ticks(
    axis: Axis,
    labels: Sequence[str],
    flagged: Collection[int] = (),
    max_ticks: int = MAX_TICKS,
    names: Sequence[str] | None = None,
) -> None:
    """Label the cells along an axis. Labels of flagged cells are red.

    Args:
        axis: The x or y axis.
        labels: One label per cell.
        flagged: Indices of flagged cells.
        max_ticks: As in `tick_places`.
        names: As in `tick_places`; None: the labels.
    """
    is_x = isinstance(axis, XAxis)
    width, height = axes_size(axis.axes)
    most = min(max_ticks, most_ticks(width if is_x else height))
    places = tick_places(len(labels), flagged, most, labels if names is None else names)
    axis.set_ticks(places, [labels[place] for place in places], fontsize=font_size("tick"))
    for place, text in zip(places, axis.get_ticklabels(), strict=True):
        if place in flagged:
            text.set_color(colour_on(figure_of(axis.axes)))
    if is_x and labels_overlap([labels[place] for place in places], width):
        axis.set_tick_params(rotation=90)


def tick_places(
    count: int, flagged: Collection[int] = (), max_ticks: int = MAX_TICKS, names: Sequence[str] = ()
) -> list[int]:
    """Return the indices of the cells that get a label.

    All flagged cells get a label, then at least one layer of each repeated block, then evenly spaced other cells. A
    label is omitted where it would overlap another one. If more than half of ``max_ticks`` cells are flagged, flags are
    ignored here.

    Args:
        count: Number of cells.
        flagged: Indices of flagged cells.
        max_ticks: Maximum number of evenly spaced labels.
        names: Names of the layers, such as ``encoder.layer.3.mlp``, a layer of the block ``encoder.layer.3``.
    """
    step = -(-count // max_ticks)
    too_many = len(flagged) > max_ticks // 2
    kept = set() if too_many else {place for place in flagged if 0 <= place < count}
    blocks = _blocks(names) if step > 1 and len(names) == count else [range(count)]
    for block in blocks:
        if not kept.intersection(block):
            kept.update(_free(block, kept, step)[:1])
    for block in blocks:
        for place in block:
            if _is_free(place, kept, step):
                kept.add(place)
    return sorted(kept)


def _free(block: range, kept: Collection[int], step: int) -> list[int]:
    """Return the places in a block that are at least ``step`` cells away from all places that are kept."""
    return [place for place in block if _is_free(place, kept, step)]


def _is_free(place: int, kept: Collection[int], step: int) -> bool:
    return all(abs(place - other) >= step for other in kept)


def _blocks(names: Sequence[str]) -> list[range]:
    """Return the places of the layers of each block: layers in a row with the same `_block`."""
    blocks, start = [], 0
    for _, group in groupby(names, _block):
        blocks.append(range(start, start + len(list(group))))
        start = blocks[-1].stop
    return blocks


def _block(name: str) -> str:
    """Return the name up to its last number, not counting a number at its end; the name itself without a number."""
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts[:-1]) if part.isdigit()]
    return ".".join(parts[: numbers[-1] + 1]) if numbers else name
