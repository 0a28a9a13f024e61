"""The file format of `CKAResult`: plain values for checkpoints, JSON for files, and the names of older versions.

The JSON has the attributes of `CKAResult`, the version of the format and of the package, and a "checksum" over the
attributes in `lightning_cka.compare.result_fields`. A later version that adds fields leaves them out of it: "left_out_
batches" has a checksum of its own. Everything is checked before a number is used. Files of version 0.1.0 have no
checksum.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

import torch

from lightning_cka.compare.diagnostics import Diagnostics, LayerDiagnostics, LeaveOneOut, SampleRatio
from lightning_cka.compare.flags import Flag
from lightning_cka.compare.layer_ranks import LayerRanks
from lightning_cka.compare.left_out_batches import LeftOutBatches
from lightning_cka.compare.pairing import Pairing
from lightning_cka.compare.result_fields import LATER_DEFAULTS, LATER_FIELDS, checked_result_fields
from lightning_cka.runtime.checked_values import Place, optional, record, text, whole
from lightning_cka.runtime.json_text import checksum, parse_json
from lightning_cka.runtime.text import about_file, one_line, shortened
from lightning_cka.runtime.unchecked_files import note_unchecked
from lightning_cka.version import __version__

FORMAT_VERSION = 1
"""Version of the file format that is written. Files of other versions can be read if their fields pass the checks."""

_MATRICES = ("matrix", "standard_error")
"""Attributes of `CKAResult` that are matrices."""

_ATOMS = frozenset((float, int, str, bool, type(None)))
"""Types of most values. They have no parts, and looking them up takes less time than the checks for parts."""

_SEAL_FIELDS = {"format_version": optional(whole(1)), "package_version": text, "checksum": optional(text)}
_SEAL = record(_SEAL_FIELDS, {"format_version": None, "package_version": "unknown", "checksum": None})


def to_plain(value: Any) -> Any:
    """Convert dataclasses to dicts and tuples to lists.

    Checkpoints need this, because loading them with ``weights_only`` allows no classes.
    """
    if type(value) in _ATOMS:
        return value
    if isinstance(value, LeftOutBatches):
        return value.state()
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, list | tuple) else value


def from_plain(state: Mapping[str, Any], place: Place | None = None) -> dict[str, Any]:
    """Return the arguments of `CKAResult` from the values of `to_plain`, also of other versions.

    Args:
        state: The values. Matrices are float64 tensors or lists of rows.
        place: Collects the names of unknown fields, which are left out.

    Raises:
        ValueError: A value is missing, or is not what it must be.
    """
    content: dict[str, Any] = checked_result_fields(state, Place() if place is None else place)
    for name in _MATRICES:
        if content[name] is not None:
            rows = [[_null_to_nan(value) for value in each] for each in content[name]]
            shape = (len(content["layers"]), len(content["reference_layers"]))
            content[name] = torch.tensor(rows, dtype=torch.float64, device="cpu").reshape(shape)
    if content["diagnostics"] is not None:
        content["diagnostics"] = _read_diagnostics(content["diagnostics"])
    if content["left_out_batches"] is not None:
        content["left_out_batches"] = LeftOutBatches.from_checked(content["left_out_batches"])
    if content["pairing"] is not None:
        content["pairing"] = Pairing(**content["pairing"])
    if content["ranks"] is not None:
        content["ranks"] = LayerRanks.from_checked(content["ranks"])
    return content


def to_json(state: Mapping[str, Any]) -> str:
    """Return the JSON text of the values of `to_plain`. Numbers that are not finite become null."""
    # Files of CKA stay as they were, so that older versions read them without a warning.
    kept = {name: value for name, value in state.items() if name not in LATER_DEFAULTS or value != LATER_DEFAULTS[name]}
    content = {name: _nan_to_null(value) for name, value in kept.items()}
    seal = {"format_version": FORMAT_VERSION, "package_version": __version__, "checksum": _checksum(content)}
    # One line for each attribute. Indented by `json.dumps`, a matrix takes three times as long and half as much space
    # again.
    lines = [f" {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in (content | seal).items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def from_json(content: bytes, path: Path) -> dict[str, Any]:
    """Return the arguments of `CKAResult` from the text of `to_json`. Warn about fields of a later version.

    Args:
        content: The text.
        path: The file, for messages.

    Raises:
        ValueError: The text is not JSON or is damaged. The message does not name the file.
    """
    values = parse_json(content)
    if not isinstance(values, dict):
        raise Place().error("a dictionary", values)
    seal = _SEAL({name: values.pop(name) for name in _SEAL_FIELDS if name in values}, Place())
    place = Place()
    known = checked_result_fields(values, place)
    if seal["checksum"] is None:
        note_unchecked("result", path)
    elif _checksum(known) != seal["checksum"]:
        raise ValueError("it is damaged: its checksum differs")
    if place.unknown:
        later = f"was written by lightning_cka {one_line(seal['package_version'], 30)}: unknown fields are ignored"
        warnings.warn(about_file(path.name, f"{later}: {shortened(place.unknown)}"), stacklevel=3)
    return from_plain(known)


def _checksum(content: Mapping[str, Any]) -> str:
    """Return the checksum of the fields that the first version of the format has, and of later ones that are set."""
    kept = {name: value for name, value in content.items() if name not in LATER_FIELDS}
    return checksum({name: value for name, value in kept.items() if value != LATER_DEFAULTS.get(name, object())})


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if type(value) in _ATOMS:
        return value
    if isinstance(value, torch.Tensor):
        rows = value.tolist()
        return rows if bool(value.isfinite().all()) else _nan_to_null(rows)
    if isinstance(value, dict):
        return {key: _nan_to_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nan_to_null(item) for item in value]
    return value


def _null_to_nan(value: float | None) -> float:
    return float("nan") if value is None else value


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
