"""Legends of lines, beside the axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_cka.figures.own_cell import axes_size
from lightning_cka.figures.user_style import font_size, text_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lightning_cka.figures.layer_history import LayerHistory

_CHARACTER = 0.06
"""Mean width in inches of a character of a legend."""
_PART = 0.36
"""Part of the user's axes that the labels of a legend may take."""


def legend_label_length(ax: Axes) -> int:
    """Return how many characters a label of a legend may have, so that it leaves the axes most of their width."""
    return max(8, int(_PART * axes_size(ax)[0] / (_CHARACTER * text_scale("legend"))))


def bands_text(histories: Sequence[LayerHistory], level: float) -> str:
    """Return what a legend says of bands around lines; "" if there are none."""
    drawn = any(np.isfinite(history.low).any() for history in histories)
    return f"bands: {100 * level:g} % CI" if drawn else ""


def some_text(drawn: Sequence[int], all_of_them: Sequence[str], kind: str) -> str:
    """Return how many lines are in the legend, if it is not all."""
    return f"{len(drawn)} of {len(all_of_them)} {kind}" if len(drawn) < len(all_of_them) else ""


def draw_legend(ax: Axes, handles: Sequence[Any], texts: Sequence[str], heading: Sequence[str] = ()) -> None:
    """Draw a legend to the right of the axes.

    Args:
        ax: The axes.
        handles: What the entries show.
        texts: The labels of the entries.
        heading: Lines above the entries.
    """
    size = font_size("legend")
    ax.legend(
        handles,
        texts,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize=size,
        frameon=False,
        title="\n".join(heading) or None,
        title_fontsize=size,
        alignment="left",
    )
