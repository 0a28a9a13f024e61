"""The fields of a saved `CKAResult`, and the checks that each of them passes before it is used."""

from __future__ import annotations

from math import isnan
from typing import Any

import torch
from torch import Tensor

from lightning_cka.compare.left_out_batches import left_out_checksum
from lightning_cka.runtime.checked_values import (
    Check,
    Place,
    boolean,
    is_number,
    list_of,
    map_of,
    number,
    optional,
    record,
    row,
    text,
    unique_texts,
    whole,
    whole_numbers,
)

_ROUNDING = 1e-6
"""How far CKA may be outside [-1, 1]: sums are float32 on devices that have no float64."""

NEW_NAMES = {
    "within": "self_comparison",
    "trace_shares": "trace_ratios",
    "hsic_shares": "hsic_ratios",
    "trace_share": "trace_ratio",
}
"""Current names by the names in files of version 0.1.0."""


def _matrix(lowest: float, highest: float = float("inf")) -> Check:
    """Return a check for matrices: a float64 tensor, or a list of rows in which None is undefined.

    The check returns a list of rows.
    """

    def check(value: Any, place: Place) -> list[list[float | None]]:
        rows = _rows(value) if isinstance(value, Tensor) else value
        if not isinstance(rows, list) or not all(isinstance(each, list) for each in rows):
            raise place.error("a matrix", value)
        for each in rows:
            for entry in each:
                if not is_number(entry, lowest, highest):
                    raise place.error(f"a matrix of numbers in [{lowest:.3g}, {highest:.3g}]", entry)
        return rows

    return check


def _rows(tensor: Tensor) -> list[list[float | None]] | None:
    """Return the rows of a matrix; None if the tensor is not a plain matrix, or repeats entries in memory."""
    is_plain = tensor.layout == torch.strided and tensor.dtype == torch.float64 and tensor.device.type != "meta"
    if not is_plain or tensor.dim() != 2 or not tensor.is_contiguous():
        return None
    return [[None if isnan(entry) else entry for entry in each] for each in tensor.tolist()]


def _reason(value: Any, place: Place) -> str:
    name = text(value, place)
    return NEW_NAMES.get(name, name)


_SAMPLE = whole(-(2**63))
_RATIOS = list_of(row(sample=_SAMPLE, ratio=number()))
_LAYERS = map_of(
    record(
        {"effective_dimension": number(), "trace_ratios": _RATIOS, "hsic_ratios": _RATIOS},
        {"trace_ratios": [], "hsic_ratios": []},
        NEW_NAMES,
    )
)
_FLAG = row(layer=text, reason=_reason, value=number(), threshold=number(), samples=whole_numbers, of_reference=boolean)
_DIAGNOSTICS = record(
    {
        "layers": _LAYERS,
        "reference_layers": _LAYERS,
        "leave_one_out": map_of(row(sample=_SAMPLE, without=number(), change=number())),
        "flags": list_of(_FLAG),
        "sample_kind": text,
    }
)

_LEFT_OUT_BATCHES = record(
    {
        "batches": list_of(text),
        "weights": list_of(number(0)),
        "names": unique_texts,
        "values": _matrix(-1 - _ROUNDING, 1 + _ROUNDING),
        "checksum": text,
    }
)

_RANK = {"value": number(0), "standard_error": number(0), "num_batches": whole()}
_RANKS = record(
    {
        "layers": map_of(row(**_RANK, effective_dimension=number())),
        "peaks": map_of(row(**_RANK, epoch=optional(whole()), step=optional(whole()))),
        "num_samples": whole(),
    }
)

LATER_FIELDS = ("left_out_batches",)
"""Fields that the checksum over a result leaves out, because files without them have a checksum, too."""

LATER_DEFAULTS = {"measure": "cka", "pairing": None, "ranks": None}
"""Fields that the checksum leaves out where they have these values, which older files do not have."""


def _left_out_batches(value: Any, place: Place) -> dict[str, Any]:
    known: dict[str, Any] = _LEFT_OUT_BATCHES(value, place)
    count, rows = len(known["batches"]), known["values"]
    if (
        len(known["weights"]) != count
        or None in known["weights"]
        or len(rows) != len(known["names"])
        or any(len(each) != count for each in rows)
        or left_out_checksum(known) != known["checksum"]
    ):
        raise ValueError(f"{place} is damaged: its checksum differs")
    return known


_FIELDS = record(
    {
        "matrix": _matrix(-1 - _ROUNDING, 1 + _ROUNDING),
        "layers": unique_texts,
        "reference_layers": unique_texts,
        "standard_error": optional(_matrix(0)),
        "num_samples": optional(whole()),
        "num_batches": optional(whole()),
        "epoch": optional(whole()),
        "step": optional(whole()),
        "model_name": text,
        "reference_name": text,
        "kernel": text,
        "measure": text,
        "self_comparison": boolean,
        "unbiased": boolean,
        "effective_batches": optional(number(0)),
        "mean_standard_error": optional(number(0)),
        "diagnostics": optional(_DIAGNOSTICS),
        "left_out_batches": optional(_left_out_batches),
        "pairing": optional(record({"layers": map_of(text), "how": text})),
        "ranks": optional(_RANKS),
    },
    {
        "standard_error": None,
        "num_samples": None,
        "num_batches": None,
        "epoch": None,
        "step": None,
        "model_name": "model",
        "reference_name": "reference",
        "kernel": "linear",
        "measure": "cka",
        "self_comparison": False,
        "unbiased": True,
        "effective_batches": None,
        "mean_standard_error": None,
        "diagnostics": None,
        "left_out_batches": None,
        "pairing": None,
        "ranks": None,
    },
    NEW_NAMES,
)


def checked_result_fields(value: Any, place: Place) -> dict[str, Any]:
    """Check the attributes of a `CKAResult`. Matrices become lists of rows, in which None is undefined."""
    known: dict[str, Any] = _FIELDS(value, place)
    shape = (len(known["layers"]), len(known["reference_layers"]))
    for name in ("matrix", "standard_error"):
        rows = known[name]
        if rows is not None and (len(rows) != shape[0] or any(len(each) != shape[1] for each in rows)):
            raise ValueError(f"{place.at(name)} must have shape {shape} to fit the layers, but has {len(rows)} rows")
    return known
