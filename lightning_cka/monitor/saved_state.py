"""What a checkpoint keeps of a monitor: a checksum is added, and everything is checked before it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_cka.compare.result_fields import LATER_FIELDS, checked_result_fields
from lightning_cka.compare.run_files import BANK_SUFFIX, INITIAL
from lightning_cka.runtime.checked_values import (
    Place,
    boolean,
    list_of,
    map_of,
    optional,
    record,
    row,
    text,
    unique_texts,
    whole,
)
from lightning_cka.runtime.json_text import checksum
from lightning_cka.runtime.text import one_line, shortened
from lightning_cka.version import __version__

FORMAT_VERSION = 1
"""Version of the state that is written. States of other versions are used if their fields pass the checks."""


def _moment(value: Any, place: Place) -> str:
    """Check the name of a moment of training, which names a file: see `lightning_cka.compare.run_files.moment`."""
    name = text(value, place)
    if name not in (INITIAL, "validate") and not re.fullmatch(r"([a-z]+-)?(epoch=\d{3,18}-)?step=\d{6,18}", name):
        raise place.error("the name of a moment of training", value)
    return name


def _banks(value: Any, place: Place) -> dict[str, Any]:
    """Check the records of banks: the path of each is ``.../banks/MOMENT.safetensors``."""
    records: dict[str, Any] = map_of(record({"path": text, "digest": text}))(value, place)
    for name, each in records.items():
        _moment(name, place)
        path = PureWindowsPath(each["path"])  # It takes separators of both kinds.
        if path.parts[-2:] != ("banks", f"{name}{BANK_SUFFIX}") or ".." in path.parts or "\x00" in each["path"]:
            raise place.at(name).error("the path of a bank", each["path"])
    return records


_LISTED = record({"size": whole(), "digest": text})


def _journal(value: Any, place: Place) -> dict[str, Any]:
    """Check what identifies the lines of the run's list of files; empty if there are none."""
    listed: dict[str, Any] = {} if value == {} else _LISTED(value, place)
    return listed


def _epoch_and_step(value: Any, place: Place) -> list[int]:
    numbers: list[int] = list_of(whole(-1))(value, place)
    if len(numbers) != 2:
        raise place.error("an epoch and a step", value)
    return numbers


_STATE = record(
    {
        "folder": text,
        "banks": _banks,
        "references": map_of(
            record(
                {"snapshot": _moment, "restarted": text, "waiting": list_of(_moment)},
                {"restarted": "", "waiting": []},
                {"anew": "restarted"},
            )
        ),
        "kinds": map_of(
            row(kernel=text, unbiased=boolean, layers=unique_texts, features=text, probe=text, reference=text)
        ),
        "results": map_of(list_of(checked_result_fields)),
        "journal": _journal,
        "last": _epoch_and_step,
        "log_key_prefix": text,
        "format_version": optional(whole(1)),
        "package_version": text,
        "checksum": optional(text),
    },
    {
        "banks": {},
        "references": {},
        "journal": {},
        "last": [-1, -1],
        "format_version": None,
        "package_version": "unknown",
        "checksum": None,
    },
)


def sealed(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state with its format version and checksum."""
    known = dict(state) | {"format_version": FORMAT_VERSION, "package_version": __version__}
    try:
        return known | {"checksum": _checksum(_STATE(known, Place()))}
    except ValueError:  # Saving a checkpoint must not end training. Without a checksum, the state is checked as it is.
        return known


def read_state(checkpoint: Mapping[str, Any], class_name: str, state_key: str, log_key_prefix: str) -> dict[str, Any]:
    """Return the state of a monitor in a checkpoint, as `sealed` got it. Warn if it cannot be used.

    Args:
        checkpoint: The checkpoint. A state that cannot be used is removed from it.
        class_name: Name of the monitor's class, with which its key starts.
        state_key: The monitor's key. A monitor with other references has another one.
        log_key_prefix: The prefix of the monitor, which the state contains.

    Returns:
        The known fields of the state; empty if there is no state that can be used.
    """
    callbacks: Any = checkpoint.get("callbacks")
    for key, state in callbacks.items() if isinstance(callbacks, dict) else ():
        if not isinstance(key, str) or not key.startswith(class_name) or (isinstance(state, dict) and not state):
            continue
        prefix = state.get("log_key_prefix") if isinstance(state, dict) else None
        if key != state_key and not (isinstance(prefix, str) and prefix == log_key_prefix):
            continue
        try:
            return _checked(state)
        except ValueError as error:
            callbacks[key] = {}  # Lightning would copy it, which fails for some values.
            problem = one_line(f"the CKA state in the checkpoint cannot be used: {error}", 220)
            rank_zero_warn(f"{problem}. Results and references restart from the current weights")
            return {}
    return {}


def _checked(state: Any) -> dict[str, Any]:
    """Return the known fields of a state. Raise a `ValueError` if it cannot be used."""
    place = Place()
    known: dict[str, Any] = _STATE(state, place)
    if known["checksum"] is None:
        rank_zero_info("CKA: the state in this checkpoint has no checksum, so damage is not noticed")
    elif _checksum(known) != known["checksum"]:
        raise ValueError("its checksum differs")
    if lacking := known["results"].keys() - known["kinds"].keys():
        raise ValueError(f"there are no settings of {shortened(sorted(lacking))}")
    if place.unknown:
        later = f"was written by lightning_cka {one_line(known['package_version'], 30)}: unknown fields are ignored"
        rank_zero_warn(one_line(f"the CKA state in the checkpoint {later}: {shortened(place.unknown)}"))
    return known


def _checksum(known: Mapping[str, Any]) -> str:
    """Return the checksum of a checked state. Banks are left out: each has the hash of its file."""
    others = ("banks", "format_version", "package_version", "checksum")
    content = {name: value for name, value in known.items() if name not in others}
    content["references"] = {
        # States of older versions have nothing that waits.
        key: {name: value for name, value in each.items() if name != "waiting" or value}
        for key, each in known["references"].items()
    }
    content["results"] = {
        key: [_without_later_fields(each) for each in states] for key, states in known["results"].items()
    }
    return checksum(content)


def _without_later_fields(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a result that a checksum covers: states of older versions have no others."""
    unset = () if result["pairing"] is not None else ("pairing",)
    return {name: value for name, value in result.items() if name not in (*LATER_FIELDS, *unset)}
