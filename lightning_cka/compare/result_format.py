"""The file format of `CKAResult`: plain values for checkpoints, JSON for files, and the names of older versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from math import inf, isfinite
from typing import Any

import torch

from lightning_cka.compare.diagnostics import Diagnostics, LayerDiagnostics, LeaveOneOut, SampleRatio
from lightning_cka.compare.flags import Flag

_MATRICES = ("matrix", "standard_error")
"""Attributes of `CKAResult` that are matrices."""

_NEW_NAMES = {
    "within": "self_comparison",
    "trace_shares": "trace_ratios",
    "hsic_shares": "hsic_ratios",
    "trace_share": "trace_ratio",
}
"""Current names by the names in files of version 0.1.0."""


def to_plain(value: Any) -> Any:
    """Convert dataclasses to dicts and tuples to lists.

    Checkpoints need this, because loading them with ``weights_only`` allows no classes.
    """
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, list | tuple) else value


def from_plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `CKAResult` from the values of `to_plain` or `from_json`, also of older versions."""
    content = _with_new_names(state)
    if content.get("diagnostics") is not None:
        content["diagnostics"] = _read_diagnostics(content["diagnostics"])
    return content


def to_json(state: Mapping[str, Any]) -> str:
    """Return the JSON text of the values of `to_plain`. Numbers that are not finite become null."""
    content = dict(state)
    for name in _MATRICES:
        if content[name] is not None:
            content[name] = content[name].tolist()
    return json.dumps(_nan_to_null(content), indent=1, allow_nan=False)


def from_json(text: str) -> dict[str, Any]:
    """Return the values from which `to_json` made the text.

    Raises:
        ValueError: The text is not JSON.
        KeyError: A matrix is missing.
        TypeError: The content has another structure.
    """
    content: dict[str, Any] = json.loads(text)
    for name in _MATRICES:
        if content[name] is not None:
            rows = [[_null_to_nan(value) for value in row] for row in content[name]]
            content[name] = torch.tensor(rows, dtype=torch.float64)
    return content


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_to_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nan_to_null(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _null_to_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _with_new_names(state: Mapping[str, Any]) -> dict[str, Any]:
    content = _renamed(state)
    if content.get("diagnostics") is not None:
        diagnostics = dict(content["diagnostics"])
        for side in ("layers", "reference_layers"):
            diagnostics[side] = {layer: _renamed(entry) for layer, entry in diagnostics[side].items()}
        diagnostics["flags"] = [
            [layer, _NEW_NAMES.get(reason, reason), *rest] for layer, reason, *rest in diagnostics["flags"]
        ]
        content["diagnostics"] = diagnostics
    return content


def _renamed(content: Mapping[str, Any]) -> dict[str, Any]:
    return {_NEW_NAMES.get(key, key): value for key, value in content.items()}


def _read_diagnostics(content: Mapping[str, Any]) -> Diagnostics:
    return Diagnostics(
        _read_layers(content["layers"]),
        _read_layers(content["reference_layers"]),
        {
            name: LeaveOneOut(sample, _null_to_nan(without), _null_to_nan(change))
            for name, (sample, without, change) in content["leave_one_out"].items()
        },
        tuple(_read_flag(*values) for values in content["flags"]),
        content["sample_kind"],
    )


def _read_layers(content: Mapping[str, Any]) -> dict[str, LayerDiagnostics]:
    return {
        name: LayerDiagnostics(
            _null_to_nan(layer["effective_dimension"]),
            _read_ratios(layer["trace_ratios"]),
            _read_ratios(layer["hsic_ratios"]),
        )
        for name, layer in content.items()
    }


def _read_ratios(content: Sequence[Any]) -> tuple[SampleRatio, ...]:
    return tuple(SampleRatio(sample, _null_to_nan(ratio)) for sample, ratio in content)


def _read_flag(
    layer: str, reason: str, value: float | None, threshold: float | None, samples: Sequence[int], of_reference: bool
) -> Flag:
    # An infinite threshold has become null in JSON.
    limit = inf if threshold is None else threshold
    return Flag(layer, reason, _null_to_nan(value), limit, tuple(samples), of_reference)
