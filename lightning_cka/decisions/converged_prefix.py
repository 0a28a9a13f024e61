"""The first layers of a model, in execution order, that an earlier state of it already had, with confidence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import isnan
from typing import NamedTuple

import torch

from lightning_cka.compare.intervals import interval_of_result, too_few_batches
from lightning_cka.compare.result import CKAResult


class ConvergedPrefix(NamedTuple):
    """The layers that have converged, and what comes after them."""

    bounds: dict[str, float]
    """Lower ends of the confidence intervals of CKA, by layer, for the layers that have converged."""
    stopped_by: str
    """The first layer that has not converged; empty if all have."""
    problem: str
    """Why nothing can be said about that layer; empty if its CKA is too low."""


def converged_prefix(
    result: CKAResult, order: Sequence[str], tolerance: float, level: float = 0.95, known: Collection[str] = ()
) -> ConvergedPrefix:
    """Return the longest prefix of layers whose CKA with an earlier state is above 1 - tolerance with confidence.

    The layers are tested in a fixed order until one fails. So the probability that a layer passes whose CKA is lower
    is at most (1 - level) / 2 in each result, without a correction for the number of layers. Paper: Maurer, Hothorn
    and Lehmacher 1995, on tests in an order that is fixed beforehand.

    Args:
        result: CKA of a model with its own earlier state.
        order: Names of the layers, in the order in which they run.
        tolerance: Largest change that does not matter, in (0, 1), in units of CKA.
        level: Level of the confidence intervals, in (0, 1).
        known: Layers that pass without a test.

    Returns:
        The layers that pass, without the known ones. A layer fails if it is flagged, undefined or has no interval. The
        flag of lost effective rank does not count: it compares a layer with its own past, and CKA stays reliable.

    Raises:
        ValueError: The level or the tolerance is out of range.
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be in (0, 1), but is {tolerance}")
    cells, (lower, _) = result.same_named_pairs(), interval_of_result(result, level)
    passed: dict[str, float] = {}
    for name in order:
        if name in known:
            continue
        bound = float(lower[cells[name]]) if name in cells else torch.nan
        problem = _problem(result, name, bound)
        if problem or bound <= 1 - tolerance:
            return ConvergedPrefix(passed, name, problem)
        passed[name] = bound
    return ConvergedPrefix(passed, "", "")


def _problem(result: CKAResult, name: str, bound: float) -> str:
    """Return why the CKA of a layer cannot be relied on; empty if it can."""
    if reasons := sorted({flag.reason for flag in result.flags_of(name)} - {"rank_loss"}):
        return f"is flagged ({', '.join(reasons)})"
    if isnan(result.same_named().get(name, torch.nan)):
        return "has no CKA"
    if isnan(bound):
        return f"has {too_few_batches(result.effective_batches) or 'no confidence interval'}"
    return ""
