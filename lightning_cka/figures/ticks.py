"""Choose which cells of an axis get a label, and draw these labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from matplotlib.axis import XAxis

from lightning_cka.figures.flag_notes import FLAG_COLOUR
from lightning_cka.figures.layout import MAX_TICKS, labels_overlap, most_ticks
from lightning_cka.figures.own_cell import axes_size
from lightning_cka.figures.user_style import font_size

if TYPE_CHECKING:
    from matplotlib.axis import Axis


def set_ticks(axis: Axis, labels: Sequence[str], flagged: Collection[int] = (), max_ticks: int = MAX_TICKS) -> None:
    """Label the cells along an axis. Labels of flagged cells are red.

    Args:
        axis: The x or y axis.
        labels: One label per cell.
        flagged: Indices of flagged cells.
        max_ticks: As in `tick_places`.
    """
    is_x = isinstance(axis, XAxis)
    width, height = axes_size(axis.axes)
    places = tick_places(len(labels), flagged, min(max_ticks, most_ticks(width if is_x else height)))
    axis.set_ticks(places, [labels[place] for place in places], fontsize=font_size("tick"))
    for place, text in zip(places, axis.get_ticklabels(), strict=True):
        if place in flagged:
            text.set_color(FLAG_COLOUR)
    if is_x and labels_overlap([labels[place] for place in places], width):
        axis.set_tick_params(rotation=90)


def tick_places(count: int, flagged: Collection[int] = (), max_ticks: int = MAX_TICKS) -> list[int]:
    """Return the indices of the cells that get a label.

    All flagged cells and evenly spaced other cells get a label. A label is omitted where it would overlap the label of
    a flagged cell. If more than half of ``max_ticks`` cells are flagged, flags are ignored here.

    Args:
        count: Number of cells.
        flagged: Indices of flagged cells.
        max_ticks: Maximum number of evenly spaced labels.
    """
    step = -(-count // max_ticks)
    too_many = len(flagged) > max_ticks // 2
    kept = set() if too_many else {place for place in flagged if 0 <= place < count}
    regular = (place for place in range(0, count, step) if all(abs(place - other) >= step for other in kept))
    return sorted(kept | set(regular))
