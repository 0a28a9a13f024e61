"""The figure size and the font sizes that users set in matplotlib's ``rcParams``."""

from __future__ import annotations

from typing import Any, cast

from matplotlib import rcParams, rcParamsDefault
from matplotlib.font_manager import FontProperties

_PARAMETERS = {
    "title": ("axes.titlesize", 10.0),
    "tick": ("xtick.labelsize", 8.0),
    "legend": ("legend.fontsize", 7.0),
    "note": ("", 7.0),
}
"""The parameter of each kind of text, and its size in points where nothing is set."""

_LEAST_ROOM = 0.75
"""Part of the room that is not for letters: ticks and gaps."""


def font_size(kind: str) -> float:
    """Return the size in points of a kind of text.

    The parameter of this kind counts if it is not matplotlib's default. Else, sizes are in proportion to "font.size".

    Args:
        kind: "title", "tick", "legend" or "note".
    """
    name, size = _PARAMETERS[kind]
    chosen, default = (cast("dict[str, Any]", parameters) for parameters in (rcParams, rcParamsDefault))
    if name and chosen[name] != default[name]:
        return float(FontProperties(size=chosen[name]).get_size_in_points())
    return size * font_scale()


def font_scale() -> float:
    """Return how many times larger "font.size" is than matplotlib's default."""
    return float(rcParams["font.size"] / rcParamsDefault["font.size"])


def room_scale() -> float:
    """Return how many times more room labels and titles need around axes than where nothing is set."""
    return max(_LEAST_ROOM, font_scale())


def text_scale(kind: str) -> float:
    """Return how many times larger texts of a kind are than where nothing is set."""
    return font_size(kind) / _PARAMETERS[kind][1]


def chosen_size() -> tuple[float, float] | None:
    """Return "figure.figsize" in inches if it is not matplotlib's default, else None."""
    size = tuple(map(float, rcParams["figure.figsize"]))
    return None if size == tuple(map(float, rcParamsDefault["figure.figsize"])) else (size[0], size[1])
