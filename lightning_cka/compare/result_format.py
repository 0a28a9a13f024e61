"""The file format of `CKAResult`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from math import isfinite
from typing import Any

from lightning_cka.compare.diagnostics import Diagnostics, LayerDiagnostics, LeaveOneOut, SampleRatio
from lightning_cka.compare.flags import Flag

MATRICES = ("matrix", "standard_error")


def to_plain(value: Any) -> Any:
    """Dataclasses as dicts and tuples as lists: a checkpoint that is loaded with ``weights_only`` holds no classes."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, list | tuple) else value


def nan_to_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: nan_to_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [nan_to_null(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def number(value: float | None) -> float:
    return float("nan") if value is None else value


_NEW_NAMES = {
    "within": "self_comparison",
    "trace_shares": "trace_ratios",
    "hsic_shares": "hsic_ratios",
    "trace_share": "trace_ratio",
}
"""Names that files of version 0.1.0 may have, and what they are called now."""


def with_new_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a result file, with the names that this version uses."""
    content = {_NEW_NAMES.get(key, key): value for key, value in state.items()}
    if content.get("diagnostics") is not None:
        diagnostics = dict(content["diagnostics"])
        for side in ("layers", "reference_layers"):
            diagnostics[side] = {
                layer: {_NEW_NAMES.get(key, key): value for key, value in entry.items()}
                for layer, entry in diagnostics[side].items()
            }
        diagnostics["flags"] = [
            [layer, _NEW_NAMES.get(reason, reason), *rest] for layer, reason, *rest in diagnostics["flags"]
        ]
        content["diagnostics"] = diagnostics
    return content


def read_diagnostics(content: dict[str, Any]) -> Diagnostics:
    def layers(side: dict[str, Any]) -> dict[str, LayerDiagnostics]:
        return {
            name: LayerDiagnostics(
                number(layer["effective_dimension"]),
                *(
                    tuple(SampleRatio(sample, number(ratio)) for sample, ratio in layer[kind])
                    for kind in ("trace_ratios", "hsic_ratios")
                ),
            )
            for name, layer in side.items()
        }

    return Diagnostics(
        layers(content["layers"]),
        layers(content["reference_layers"]),
        {
            name: LeaveOneOut(sample, number(without), number(change))
            for name, (sample, without, change) in content["leave_one_out"].items()
        },
        tuple(Flag(*values)._replace(samples=tuple(values[4])) for values in content["flags"]),
        content["sample_kind"],
    )
