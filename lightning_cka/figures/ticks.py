"""Choose which cells of an axis get a label, and draw these labels."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from matplotlib.axis import XAxis

from lightning_cka.compare.bank_series import INITIAL_LABEL, STEP_LABEL
from lightning_cka.figures.flag_notes import colour_on
from lightning_cka.figures.layout import (
    MAX_TICKS,
    are_numbers,
    figure_of,
    labels_overlap,
    most_numbers,
    most_ticks,
)
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
    if are_numbers(labels):
        places = number_places(labels, min(most, most_numbers(width, labels)) if is_x else most)
    else:
        places = tick_places(len(labels), flagged, most, labels if names is None else names)
    axis.set_ticks(places, [labels[place] for place in places], fontsize=font_size("tick"))
    for place, tick in zip(places, axis.get_major_ticks(), strict=True):
        if place in flagged:
            for text in (tick.label1, tick.label2):  # The user's style may have labels at both ends.
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


def number_places(labels: Sequence[str], max_ticks: int) -> list[int]:
    """Return the indices of evenly spaced labels; of consecutive numbers, those of multiples of 1, 2, 5, 10, 20, ...

    Args:
        labels: Numbers, such as epochs. The first label can be the start of training.
        max_ticks: Maximum number of labels.
    """
    steps = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    step = next(step for step in steps if -(-len(labels) // step) <= max_ticks)
    has_start = labels[0] == INITIAL_LABEL
    numbers = [label.removeprefix(STEP_LABEL) for label in labels[has_start:]]
    if not numbers or numbers != [str(int(numbers[0]) + place) for place in range(len(numbers))]:
        return list(range(0, len(labels), step))
    offset = has_start + -int(numbers[0]) % step
    if has_start:
        return [0, *range(offset + step * (offset < step), len(labels), step)]
    return list(range(offset, len(labels), step))


def _free(block: range, kept: Collection[int], step: int) -> list[int]:
    """Return the places in a block that are at least ``step`` cells away from all places that are kept."""
    return [place for place in block if _is_free(place, kept, step)]


def _is_free(place: int, kept: Collection[int], step: int) -> bool:
    return all(abs(place - other) >= step for other in kept)


def _blocks(names: Sequence[str]) -> list[range]:
    """Return the places of the layers of each block: layers in a row with the same `_block`."""
    blocks, start = [], 0
    for _, group in itertools.groupby(names, _block):
        blocks.append(range(start, start + len(list(group))))
        start = blocks[-1].stop
    return blocks


def _block(name: str) -> str:
    """Return the name up to its last number, not counting a number at its end; the name itself without a number."""
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts[:-1]) if part.isdigit()]
    return ".".join(parts[: numbers[-1] + 1]) if numbers else name
