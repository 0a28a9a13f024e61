"""The legend of maps of samples: labels, and marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_cka.compare.sample_maps import SampleMaps
from lightning_cka.figures.flag_notes import FLAG
from lightning_cka.figures.label_colours import LabelColours
from lightning_cka.figures.layout import figure_of
from lightning_cka.figures.sample_panel import mark_handle
from lightning_cka.figures.user_style import font_size, text_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_LINE = 0.155
"""Height in inches of a line of the legend."""
_CHARACTER = 0.065


def legend_width(legend: Sequence[tuple[Line2D | None, str]], side: float) -> float:
    """Return the width in inches of a legend beside a panel with this length of a side."""
    longest = max((len(text) for _, text in legend), default=-4)
    return 0.1 + _columns(len(legend), side) * (0.3 + _CHARACTER * text_scale("legend") * longest)


def _columns(count: int, side: float) -> int:
    return -(-count // max(1, int(side / (_LINE * text_scale("legend")))))


def sample_legend(maps: SampleMaps, colours: LabelColours) -> list[tuple[Line2D | None, str]]:
    """Return handles and texts of the legend. The handle of marks is None, because it depends on the background."""
    legend = colours.legend(list(dict.fromkeys(sample for each in maps.maps for sample in each.samples)))
    if any(each.marked for each in maps.maps):
        legend.append((None, f"{FLAG} {maps.sample_kind}"))
    return legend


def write_legend(ax: Axes, legend: Sequence[tuple[Line2D | None, str]]) -> None:
    """Write a legend to the right of the axes, if it has entries."""
    if not legend:
        return
    height = ax.get_position().height * figure_of(ax).get_figheight()
    ax.legend(
        [handle or mark_handle(ax) for handle, _ in legend],
        [text for _, text in legend],
        ncols=_columns(len(legend), height),
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        fontsize=font_size("legend"),
        frameon=False,
        borderaxespad=0.3,
        handletextpad=0.3,
        columnspacing=0.8,
    )
