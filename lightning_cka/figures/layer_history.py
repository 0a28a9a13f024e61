"""CKA of paired layers, collected from the results of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightning_cka.compare.bank_series import INITIAL_LABEL
from lightning_cka.compare.intervals import interval_of_result
from lightning_cka.compare.run_files import is_start
from lightning_cka.decisions.settled import settled_since

if TYPE_CHECKING:
    from lightning_cka.compare.pairing import Pairing
    from lightning_cka.compare.result import CKAResult


@dataclass(frozen=True)
class LayerHistory:
    """CKA of each layer with the reference's layer that it is paired with, for several results.

    Attributes:
        names: Names of the L paired layers of the last result, which all values are of.
        values: CKA ``(L, results)``; ``nan`` where a result lacks the layer.
        low: Lower bounds of confidence intervals ``(L, results)``; ``nan`` where the error is not known.
        high: Upper bounds of confidence intervals ``(L, results)``; ``nan`` where the error is not known.
        settled: For each layer, the index of the result from which on it stays within the tolerance of its last value
            with confidence. None if there is no such result before the last one, or if it is not known.
        opinions: The second opinion, mutual kNN or ridge CKA, ``(L, results)``; ``nan`` where no flag says that it
            differs from CKA.
    """

    names: list[str]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    settled: list[int | None]
    opinions: NDArray[np.float64]


def layer_history(results: Sequence[CKAResult], level: float = 0.95, tolerance: float | None = None) -> LayerHistory:
    """Collect the CKA of the layers that are paired in the last result.

    Args:
        results: At least one result, in order.
        level: Level of the confidence intervals, in (0, 1).
        tolerance: Tolerance of `lightning_cka.decisions.settled.settled_since`. None: no layer counts as settled.

    Raises:
        ValueError: There is no result, the last one has no paired layers, or a number is out of range.
    """
    if not results or not (pairing := results[-1].paired()).layers:
        raise ValueError("expected at least one result with layers of the same name, or paired otherwise")
    names = list(pairing.layers)
    values, low, high = np.stack([_values_and_bounds(result, pairing, level) for result in results], axis=-1)
    settled = {} if tolerance is None else settled_since(results, tolerance, level)
    opinions = values + np.stack([_disagreements(result, names) for result in results], axis=-1)
    return LayerHistory(names, values, low, high, [settled.get(name) for name in names], opinions)


def _disagreements(result: CKAResult, names: Sequence[str]) -> NDArray[np.float64]:
    """Return the second opinion minus CKA for each layer that is flagged because of it, ``(names,)``; else ``nan``."""
    flagged = {flag.layer: flag.value for flag in result.flags if flag.reason == "disagreement"}
    return np.array([flagged.get(name, np.nan) for name in names])


def check_same_layers(results: Sequence[CKAResult], names: list[str]) -> None:
    """Check that results have these paired layers.

    Raises:
        ValueError: One has others.
    """
    for result in results:
        if (other := list(result.same_named_pairs())) != names:
            raise ValueError(f"the results must have the same layers, but one has {other} and another has {names}")


def moment_labels(results: Sequence[CKAResult]) -> tuple[list[str], str]:
    """Return one label per result, and what the labels are.

    Labels are epochs, or steps if several results belong to one epoch, or if the run compares by steps. The start of
    training is "init" among epochs.
    """
    epochs = [INITIAL_LABEL if is_start(result) else str(result.epoch) for result in results]
    by_steps = any(result.epoch is None and result.step is not None and not is_start(result) for result in results)
    if by_steps or len(set(epochs)) < len(epochs) or set(epochs) == {INITIAL_LABEL}:
        return [str(result.step) for result in results], "step"
    return epochs, "epoch"


def _values_and_bounds(result: CKAResult, pairing: Pairing, level: float) -> NDArray[np.float64]:
    """Return CKA, lower bound and upper bound ``(3, pairs)`` of one result; ``nan`` where one is not known."""
    matrices = [result.matrix, *interval_of_result(result, level)]
    pairs = result.cells(pairing)
    found = np.full((3, len(pairing.layers)), np.nan)
    for place, name in enumerate(pairing.layers):
        if name in pairs:
            found[:, place] = [float(matrix[pairs[name]]) for matrix in matrices]
    return found
