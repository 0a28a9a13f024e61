"""Which values have the colours at the two ends of the colour map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Bound = float | Literal["auto"]
"""A value, or "auto" for the smallest or the largest value of a figure."""

_NARROW = 0.05
"""Part of the colour map. If all values lie within it, their colours can hardly be told apart."""
_SMALLEST = 1e-6
"""Range of values that are equal but for rounding."""


def colour_range(
    matrices: Sequence[NDArray[np.float64]], vmin: Bound = 0.0, vmax: Bound | None = None
) -> tuple[float, float]:
    """Return the values at the lower and the upper end of the colour map.

    Args:
        matrices: All values of the figure. ``nan`` does not count.
        vmin: Value at the lower end, or "auto" for the smallest value.
        vmax: Value at the upper end, or "auto" for the largest value. None takes 1, or "auto" if ``vmin`` is "auto".

    Raises:
        ValueError: A bound is another text than "auto".
    """
    if vmax is None:
        vmax = "auto" if vmin == "auto" else 1.0
    for name, bound in (("vmin", vmin), ("vmax", vmax)):
        if isinstance(bound, str) and bound != "auto":
            raise ValueError(f'{name} must be a number or "auto", but got {bound!r}')
    smallest, largest = _extremes(matrices) or (0.0, 1.0)
    if largest - smallest < _SMALLEST:
        smallest, largest = smallest - 0.005, largest + 0.005
    return smallest if vmin == "auto" else float(vmin), largest if vmax == "auto" else float(vmax)


def narrow_range_note(
    matrices: Sequence[NDArray[np.float64]], low: float, high: float, *, short: bool = False
) -> list[str]:
    """Return a line that says in which small part of the colour map all values lie; empty if it is no small part.

    Args:
        matrices: All values of the figure.
        low: Value at the lower end of the colour map.
        high: Value at the upper end of the colour map.
        short: Whether to say it in few words.
    """
    extremes = _extremes(matrices)
    if extremes is None or not _SMALLEST <= extremes[1] - extremes[0] <= _NARROW * (high - low):
        return []
    where = f"{extremes[0]:.3f} to {extremes[1]:.3f}"
    if short:
        return [f'only {where}: see vmin="auto"']
    return [f'all values lie in {where}: vmin="auto" shows their differences']


def has_nan(matrices: Sequence[NDArray[np.float64]]) -> bool:
    """Return whether a value is ``nan``."""
    return any(bool(np.isnan(matrix).any()) for matrix in matrices)


def _extremes(matrices: Sequence[NDArray[np.float64]]) -> tuple[float, float] | None:
    """Return the smallest and the largest finite value, or None if there is none."""
    values = np.concatenate([np.asarray(matrix, dtype=np.float64).ravel() for matrix in matrices])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else None
