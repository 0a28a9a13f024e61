"""The seed ceiling in figures of lines: dashed lines with bands, and what the legend says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.lines import Line2D
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lightning_cka.compare.result import CKAResult
    from lightning_cka.decisions.ceiling import SeedCeiling

_DASHES = (0, (5, 2))
_ALPHA = 0.12


def legend_lines(ceiling: SeedCeiling | None) -> list[str]:
    """Return the lines of a legend that say what a ceiling is; none without a ceiling."""
    if ceiling is None:
        return []
    number = f"{ceiling.num_seeds} seeds{': no band' if ceiling.problem else ''}"
    return [f"seed ceiling ({number})", *([] if ceiling.chance is None else [f"chance: {ceiling.chance:g}"])]


class CeilingLines(NamedTuple):
    """A seed ceiling for the layers of a figure."""

    values: NDArray[np.float64]
    """The ceiling of each layer; ``nan`` where it has none."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    text: str
    """What the legend says."""

    @classmethod
    def of(
        cls, ceiling: SeedCeiling | None, result: CKAResult, names: Sequence[str], level: float
    ) -> CeilingLines | None:
        """Return the ceiling of layers of a result; None if there is no ceiling.

        Raises:
            ValueError: The ceiling does not fit the result; see `SeedCeiling.check_fits`.
        """
        if ceiling is None:
            return None
        ceiling.check_fits(result)
        rows = [ceiling.layers.index(name) if name in ceiling.layers else -1 for name in names]
        known = np.array(rows) >= 0
        values, low, high = (
            np.where(known, each.numpy()[rows], np.nan) for each in (ceiling.values, *ceiling.bounds(level))
        )
        return cls(values, low, high, "\n".join(legend_lines(ceiling)))

    @property
    def legend_entry(self) -> tuple[Any, str]:
        """What the legend shows, and its text."""
        return Line2D([], [], color="grey", linewidth=1.2, linestyle=_DASHES), self.text

    def draw_across(self, ax: Axes, row: int, ends: tuple[float, float], colour: Any) -> None:
        """Draw the ceiling of one layer across a figure over moments, between two places."""
        ax.fill_between(ends, self.low[row], self.high[row], color=colour, alpha=_ALPHA, linewidth=0)
        height = [self.values[row]] * 2
        ax.plot(ends, height, color=colour, linewidth=1.0, linestyle=_DASHES, label="_ceiling")

    def draw_over_depth(self, ax: Axes, colour: Any = None) -> None:
        """Draw the ceiling of all layers from left to right; by default in the colour of texts."""
        places, colour = np.arange(len(self.values)), colour or ax.xaxis.label.get_color()
        ax.fill_between(places, self.low, self.high, color=colour, alpha=_ALPHA, linewidth=0)
        ax.plot(places, self.values, color=colour, linewidth=1.2, linestyle=_DASHES, label="_ceiling")
