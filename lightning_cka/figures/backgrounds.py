"""Whether axes or figures have a dark background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.colors import to_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def is_dark(ax: Axes | Figure) -> bool:
    """Return whether the background of axes or of a figure has less than half of the luma of white (ITU-R BT.601)."""
    red, green, blue = to_rgb(ax.get_facecolor())
    return 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
