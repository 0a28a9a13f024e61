"""The numbers of results that share their layers and their probe set, packed together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_cka.compare.intervals import interval
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.jackknife import effective_batches
from lightning_cka.runtime.files import digest
from lightning_cka.view.packing import DECIMALS, UNDEFINED, packed_integers, shown_digits

LEVEL = 0.95
"""Level of the intervals."""

FINE_DECIMALS = 8
"""Number of decimals of the values of paired layers. Differences of two of them have `DECIMALS` certain decimals."""

LEFT_OUT_DECIMALS = (6, 5)
"""Number of decimals of values without a batch, from which the errors of differences follow: if these change little
from result to result, so that differences have small errors, and else."""

_LITTLE = 2e-3

Integers = NDArray[np.int32]


def blocks_of(results: Sequence[CKAResult]) -> list[list[CKAResult]]:
    """Return results in groups of consecutive ones that have the same layers, pairs of layers and probe batches."""
    return [list(block) for _, block in groupby(results, shared_content)]


def shared_content(result: CKAResult) -> list[Any]:
    """Return plain values that all results of a block share: their layers, pairs of layers and probe batches."""
    records = result.left_out_batches
    pairs = list(result.same_named_pairs().values())
    return [
        list(result.layers),
        list(result.reference_layers),
        [list(cell) for cell in pairs],
        records and [list(records.batches), records.weights.tolist()],
    ]


def block_content(results: Sequence[CKAResult]) -> dict[str, Any]:
    """Return the plain values of one block.

    Args:
        results: Results of one block of `blocks_of`.
    """
    first = results[0]
    factors = [_factor(result.effective_batches) for result in results]
    values = np.stack([result.matrix.numpy() for result in results])
    digits = shown_digits(values)
    return {
        "model": _shortened([result.model_name for result in results]),
        "reference": _shortened([result.reference_name for result in results]),
        "rows": list(first.layers),
        "columns": list(first.reference_layers),
        "pairs": [list(cell) for cell in first.same_named_pairs().values()],
        "epochs": [result.epoch for result in results],
        "steps": [result.step for result in results],
        "samples": [result.num_samples for result in results],
        "batches": [result.num_batches for result in results],
        "effective": [_finite(result.effective_batches, 2) for result in results],
        "factors": factors,
        "mean": first.mean_name.replace("_", " "),
        "means": [_finite(_mean(result), DECIMALS) for result in results],
        "values": packed_integers(digits),
        **_errors(results, values, digits, factors),
        "paired": _paired(results, values, digits),
    }


def _mean(result: CKAResult) -> float:
    return result.mean() if result.mean_name == "mean" else result.mean_all_pairs()


def _shortened(names: list[str]) -> list[str]:
    """Return one name if all are equal."""
    return names[:1] if len(set(names)) == 1 else names


def _finite(value: float | None, decimals: int) -> float | None:
    return None if value is None or not isfinite(value) else round(value, decimals)


def _factor(batches: float | None) -> float | None:
    """Return by what a standard error is multiplied for half of an interval; None if there are too few batches."""
    if batches is None:
        return None
    one = torch.ones(1, dtype=torch.float64, device="cpu")
    factor = float(interval(torch.zeros_like(one), one, batches, LEVEL)[1])
    return factor if isfinite(factor) else None


def _errors(
    results: Sequence[CKAResult], values: NDArray[np.float64], digits: Integers, factors: Sequence[float | None]
) -> dict[str, str | None]:
    """Return the packed standard errors, and the packed bounds of the intervals as corrections.

    The scripts compute the digits of a bound from the digits of value and error, add the correction, and get the digits
    of the bound itself.
    """
    if all(result.standard_error is None for result in results):
        return {"errors": None, "bounds": None}
    errors = np.stack([_matrix(result.standard_error, result.matrix) for result in results])
    error_digits = shown_digits(errors)
    factor = np.array([np.nan if factor is None else factor for factor in factors])[:, None, None]
    known = (error_digits != UNDEFINED) & (digits != UNDEFINED) & ~np.isnan(factor)
    half = np.floor(np.where(known, factor * error_digits, 0.0) + 0.5).astype(np.int64)
    codes = np.zeros(digits.shape, np.int32)
    for sign, weight in ((-1, 16), (1, 1)):
        bound = shown_digits(np.where(known, values + sign * factor * errors, np.nan))
        codes += weight * np.where(known, bound - (digits + sign * half), 0).astype(np.int32)
    return {"errors": packed_integers(error_digits), "bounds": packed_integers(codes)}


def _matrix(matrix: torch.Tensor | None, like: torch.Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (torch.full_like(like, torch.nan) if matrix is None else matrix).numpy()
    return found


def _paired(results: Sequence[CKAResult], values: NDArray[np.float64], digits: Integers) -> dict[str, Any] | None:
    """Return what the errors of differences between results of the block need; None if it is not known.

    "probe" identifies the probe batches: blocks with the same ones have errors of differences between them, too. The
    rest holds for each pair of layers the digits of its value that follow the shown ones, and how far its value without
    each batch is from its value.
    """
    cells = list(results[0].same_named_pairs().values())
    first = results[0].left_out_batches
    if not cells or first is None or len(first.batches) < 2 or any(each.left_out_batches is None for each in results):
        return None
    rows, columns = np.array(cells).T
    own = values[:, rows, columns]
    coarse = np.where(np.isnan(own), 0, digits[:, rows, columns]) * 10.0**-DECIMALS
    left_out = np.stack([_left_out(each)[:, rows, columns] for each in results]) - own[:, None]
    decimals = _left_out_decimals(left_out)
    number = effective_batches(first.weights)
    return {
        "batches": len(first.batches),
        "probe": digest(repr((first.batches, first.weights.tolist())).encode()),
        "scale": 1 - 1 / number,
        "factor": _factor(number),
        "fine": packed_integers(shown_digits(own - coarse, FINE_DECIMALS)),
        "left_out": packed_integers(shown_digits(left_out, decimals)),
        "decimals": decimals,
    }


def _left_out_decimals(left_out: NDArray[np.float64]) -> int:
    steps = np.abs(np.diff(left_out, axis=0))
    known = steps[~np.isnan(steps)]
    return LEFT_OUT_DECIMALS[int(known.size > 0 and float(np.median(known)) > _LITTLE)]


def _left_out(result: CKAResult) -> NDArray[np.float64]:
    """Return the values without each batch ``(k, L, R)``; ``nan`` for pairs of layers that are not kept."""
    records = result.left_out_batches
    assert records is not None
    found: NDArray[np.float64] = records.matrices(result.matrix.shape, result.same_named_pairs()).numpy()
    return found
