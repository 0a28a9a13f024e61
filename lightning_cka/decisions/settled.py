"""From which result on a layer stays within a tolerance of its last CKA, with confidence."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_cka.compare.result import CKAResult

DEFAULT_TOLERANCE = 0.01
"""Change of CKA that does not matter. It is about the smallest step that one sees in the colours of a heatmap."""


def settled_since(
    results: Sequence[CKAResult], tolerance: float = DEFAULT_TOLERANCE, level: float = 0.95
) -> dict[str, int | None]:
    """Return for each layer from which result on CKA stays within a tolerance of the last one, with confidence.

    This is a test of equivalence: the confidence interval of the paired difference to the last result lies inside
    [-tolerance, tolerance]. That a difference is not significant would not be enough, because with few samples nothing
    is significant. All results from the returned one on pass the test, so that no correction for their number is due.

    Args:
        results: Results of one reference, in order; at least one.
        tolerance: Largest change that does not matter, greater than 0, in units of CKA.
        level: Level of the confidence intervals, in (0, 1). There is no correction for the number of layers.

    Returns:
        Index of the first such result, by layer, for the layers that are paired in the last result. None: not even
        the last but one is within the tolerance, or the results before the first such one have no records of their
        batches, so that it is unknown when the layer settled.

    Raises:
        ValueError: The level or the tolerance is out of range.
    """
    last = results[-1]
    if not tolerance > 0:
        raise ValueError(f"tolerance must be greater than 0, but is {tolerance}")
    settled: dict[str, int | None] = dict.fromkeys(last.same_named_pairs())
    open_layers = list(settled)
    for place in reversed(range(len(results) - 1)):
        bounds = _bounds(last, results[place], level)
        still_open = []
        for name in open_layers:
            if name not in bounds:
                settled[name] = None
            elif -tolerance <= bounds[name][0] and bounds[name][1] <= tolerance:
                settled[name] = place
                still_open.append(name)
        open_layers = still_open
        if not open_layers:
            break
    return settled


def _bounds(later: CKAResult, earlier: CKAResult, level: float) -> dict[str, tuple[float, float]]:
    """Return confidence intervals of the paired differences by layer, where both results have records of the layer."""
    try:
        difference = later.difference(earlier)
    except ValueError:  # Records are missing, or the probe sets differ.
        return {}
    low, high = difference.bounds(level)
    return {name: (float(low[cell]), float(high[cell])) for name, cell in difference.same_named_pairs().items()}
