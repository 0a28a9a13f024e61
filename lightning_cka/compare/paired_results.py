"""Subtract one result from another of the same probe set, with errors that are paired over probe batches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from lightning_cka.compare.difference import CKADifference
from lightning_cka.compare.left_out_batches import LeftOutBatches
from lightning_cka.compare.pairing import Pairing
from lightning_cka.hsic.jackknife import effective_batches, jackknife_error
from lightning_cka.runtime.text import shortened

if TYPE_CHECKING:
    from lightning_cka.compare.result import CKAResult


def paired_difference(later: CKAResult, earlier: CKAResult) -> CKADifference:
    """Return the difference of two results; see `CKAResult.difference`."""
    records = _checked_records(later, earlier)
    layers = [name for name in later.layers if name in earlier.layers]
    columns = [name for name in later.reference_layers if name in earlier.reference_layers]
    if not layers or not columns:
        side, names = ("layers", earlier.layers) if not layers else ("reference_layers", earlier.reference_layers)
        raise ValueError(
            f"the two results have no {side} in common: expected some of {shortened(getattr(later, side))}, but the "
            f"earlier result has {shortened(names)}"
        )
    pairing = _common_pairs(later, earlier)
    _check_kept_pairs(later, earlier, pairing)
    matrices, left_out = [], []
    for result, record in zip((later, earlier), records, strict=True):
        rows = [result.layers.index(name) for name in layers]
        places = [result.reference_layers.index(name) for name in columns]
        matrices.append(result.matrix[rows][:, places])
        left_out.append(record.matrices(result.matrix.shape, result.same_named_pairs())[:, rows][:, :, places])
    matrix, without = matrices[0] - matrices[1], left_out[0] - left_out[1]
    weights = records[0].weights
    error = jackknife_error(matrix, without, weights)
    difference = CKADifference(
        matrix,
        error,
        torch.nan,
        tuple(layers),
        tuple(columns),
        later,
        earlier,
        effective_batches(weights),
        later.self_comparison and earlier.self_comparison,
        pairing,
    )
    cells = difference.mean_cells()
    mean_error = jackknife_error(matrix[cells].mean(), without[:, cells].mean(1), weights)
    return replace(difference, mean_standard_error=float(mean_error))


def _common_pairs(later: CKAResult, earlier: CKAResult) -> Pairing:
    """Return the pairs of layers that both results have."""
    own, others = later.paired(), earlier.paired().layers
    return Pairing({name: other for name, other in own.layers.items() if others.get(name) == other}, own.how)


def _check_kept_pairs(later: CKAResult, earlier: CKAResult, pairing: Pairing) -> None:
    """Raise a `ValueError` if no pair of layers that can differ has records in both results.

    Args:
        later: The later result.
        earlier: The earlier result.
        pairing: The pairs of layers that both results have.
    """
    records = (later.left_out_batches, earlier.left_out_batches)
    if all(record is not None and record.all_pairs is not None for record in records):
        return
    if later.self_comparison and earlier.self_comparison:
        problem = "in a model that is compared with itself, CKA of these is always 1"
    elif not pairing.layers:
        problem = "the two results have no such pairs in common"
    else:
        return
    raise ValueError(
        f"saved results, and those of a monitor, keep errors for paired layers only, but {problem}. Results "
        "of compare_banks and compare_models have errors for all pairs"
    )


def _checked_records(later: CKAResult, earlier: CKAResult) -> tuple[LeftOutBatches, LeftOutBatches]:
    """Return both results' values without each batch.

    Raises:
        ValueError: They are missing, or the probe sets or the estimators differ.
    """
    found = []
    for name, result in (("later", later), ("earlier", earlier)):
        if result.left_out_batches is None:
            raise ValueError(
                f"the {name} result has no left_out_batches, which a paired error needs: it is of MinibatchCKA, of an "
                "older version, or of a comparison that failed. compare_banks and compare_models give results with them"
            )
        found.append(result.left_out_batches)
    if problem := found[0].batch_differences(found[1]):
        raise ValueError(
            f"the two results are not of one probe set: {problem}. Compare both models on the same samples in the same "
            "batches, for example with GramBank.from_model(..., like=)"
        )
    if later.unbiased != earlier.unbiased:
        kinds = ["unbiased" if result.unbiased else "biased" for result in (later, earlier)]
        raise ValueError(
            f"the later result is {kinds[0]} and the earlier one is {kinds[1]}: their difference would be the bias. "
            "Pass the same unbiased= to both"
        )
    return found[0], found[1]
