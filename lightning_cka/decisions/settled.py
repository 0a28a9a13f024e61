"""From which result on a layer stays within a tolerance of its last CKA, with confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from lightning_cka.compare.intervals import interval
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import last_of_training
from lightning_cka.hsic.jackknife import effective_batches, jackknife_error

DEFAULT_TOLERANCE = 0.01
"""Change of CKA that does not matter. It is about the smallest step that one sees in the colours of a heatmap."""

LEVEL = 0.95


class Change(NamedTuple):
    """A paired difference of CKA, with its confidence interval; ``nan`` if there are too few batches for one."""

    value: float
    low: float
    high: float

    def is_within(self, tolerance: float) -> bool:
        """Whether the interval lies inside [-tolerance, tolerance]."""
        return -tolerance <= self.low and self.high <= tolerance


def settled_since(
    results: Sequence[CKAResult], tolerance: float = DEFAULT_TOLERANCE, level: float = LEVEL
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
    check_tolerance(tolerance)
    settled: dict[str, int | None] = dict.fromkeys(last.same_named_pairs())
    open_layers = list(settled)
    for place in reversed(range(len(results) - 1)):
        changes = changes_between(last, results[place], level)
        still_open = []
        for name in open_layers:
            if name not in changes:
                settled[name] = None
            elif changes[name].is_within(tolerance):
                settled[name] = place
                still_open.append(name)
        open_layers = still_open
        if not open_layers:
            break
    return settled


def settled_count(results: Sequence[CKAResult], tolerance: float, patience: int, level: float = LEVEL) -> int:
    """Return how many layers have stayed within a tolerance of their last CKA in the last comparisons.

    Only the last ``patience + 1`` results of training are used, so that the cost does not grow with their number.

    Args:
        results: Results of one reference that does not move, in order.
        tolerance: As in `settled_since`.
        patience: Number of comparisons before the last one that must be within the tolerance, at least 1.
        level: As in `settled_since`.

    Returns:
        The count. 0 with fewer results, with too few probe batches for intervals, and where records are missing.
    """
    recent = last_of_training(results, patience + 1)
    if len(recent) <= patience:
        return 0
    return sum(place == 0 for place in settled_since(recent, tolerance, level).values())


def check_tolerance(tolerance: float) -> None:
    """Raise a `ValueError` if a tolerance is not greater than 0."""
    if not tolerance > 0:
        raise ValueError(f"tolerance must be greater than 0, but is {tolerance}")


def changes_between(later: CKAResult, earlier: CKAResult, level: float) -> dict[str, Change]:
    """Return later CKA minus earlier CKA of each paired layer, with paired confidence intervals.

    The values are those of `CKAResult.difference`, for paired layers alone, which takes less time for many layers.

    Returns:
        Changes by layer, for layers that both results pair with the same layer. Empty if records are missing, or if the
        probe sets or the estimators differ.
    """
    after, before = later.left_out_batches, earlier.left_out_batches
    if after is None or before is None or after.batch_differences(before) or later.unbiased != earlier.unbiased:
        return {}
    cells, old_cells = later.same_named_pairs(), earlier.same_named_pairs()
    rows, old_rows = ({name: row for row, name in enumerate(record.names)} for record in (after, before))
    known = cells.keys() & old_cells.keys() & rows.keys() & old_rows.keys()
    partners, old_partners = later.paired().layers, earlier.paired().layers
    names = [name for name in cells if name in known and partners[name] == old_partners[name]]
    if not names:
        return {}
    values = [float(later.matrix[cells[name]]) - float(earlier.matrix[old_cells[name]]) for name in names]
    value = torch.tensor(values, dtype=torch.float64, device="cpu")
    left_out = after.values[[rows[name] for name in names]] - before.values[[old_rows[name] for name in names]]
    error = jackknife_error(value, left_out.T, after.weights)
    low, high = interval(value, error, effective_batches(after.weights), level)
    return {name: Change(*map(float, each)) for name, *each in zip(names, value, low, high, strict=True)}
