"""Read JSON that may be damaged, and compute a checksum of plain values."""

from __future__ import annotations

import json
from math import isinf
from typing import Any

from lightning_cka.runtime.files import digest

_MOST_BRACKETS = 10_000
"""Number of lists and dictionaries that a text of any length may have."""


def parse_json(content: bytes | str) -> Any:
    """Return the value of a JSON text.

    Args:
        content: The text, or its UTF-8 bytes.

    Raises:
        ValueError: The text is not JSON, is nested too deeply, has numbers that are not finite, or consists mainly of
            brackets, which would take more than ten times as much memory as the text.
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
        brackets = text.count("[") + text.count("{")
        if brackets > max(_MOST_BRACKETS, len(text) // 8):
            raise ValueError(f"it has {brackets} brackets in {len(text)} characters")
        return json.loads(text, parse_float=_finite, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def checksum(content: Any) -> str:
    """Return a hash of plain values: of dictionaries, lists, strings and numbers. The order of fields is ignored."""
    return digest(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def _finite(text: str) -> float:
    value = float(text)
    if isinf(value):
        raise ValueError(f"{text[:40]} is out of range")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
