"""Pack numbers and plain values into short texts, which the scripts of the view unpack.

A number is shown with a fixed number of decimals. Its packed form is the integer of these digits, so that every digit
is that of the number itself. `unpackIntegers` in ``packed.js`` is the inverse of `packed_integers`.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_cka.runtime.json_text import parse_json

FORMAT = 1
"""Version of the form of payloads. The scripts refuse others."""

DECIMALS = 4
"""Number of decimals of values, errors and bounds."""

UNDEFINED = -(2**31)
"""Stands for ``nan``."""

MOST_BYTES = 2**28
"""Number of bytes that a text may unpack to."""

_NEAR_TIE = 1e-6
"""Distance from the middle between two integers within which the product below can be rounded to the wrong one."""


def shown_digits(values: NDArray[np.float64], decimals: int = DECIMALS) -> NDArray[np.int32]:
    """Return the integers that numbers become if they are written with some decimals and without the point.

    Args:
        values: Numbers of any shape.
        decimals: Number of decimals.

    Returns:
        Integers of the same shape: 1234 for 0.12341 and 4 decimals. `UNDEFINED` for numbers that are not finite or too
        large.
    """
    scaled = values * 10.0**decimals
    known = np.abs(scaled) < -UNDEFINED - 1
    digits = np.where(known, np.rint(np.where(known, scaled, 0.0)), UNDEFINED).astype(np.int32)
    # Multiplying rounds. In the middle between two integers, only the number's own digits tell which is nearer.
    rest = np.where(known, scaled, 0.0) % 1
    near = np.abs(rest - 0.5) < _NEAR_TIE
    for place in zip(*np.nonzero(near), strict=True):
        digits[place] = int(f"{values[place]:.{decimals}f}".replace(".", ""))
    return digits


def packed_integers(integers: NDArray[np.int32]) -> str:
    """Return integers as a text: base64 of zlib, after a letter.

    Either the integers are packed ("p") or their differences along the first axis ("d"), whichever is shorter.

    Args:
        integers: Integers ``(E, ...)``.
    """
    differences = np.diff(integers, axis=0, prepend=np.zeros_like(integers[:1]))
    return min(f"p{_text(_planes(integers))}", f"d{_text(_planes(differences))}", key=len)


def _planes(integers: NDArray[np.int32]) -> bytes:
    """Return all lowest bytes, then all second bytes and so on. The upper ones are nearly all 0, and take no space."""
    folded = ((integers << 1) ^ (integers >> 31)).astype("<u4")  # Small numbers of either sign become small numbers.
    return folded.reshape(-1, 1).view(np.uint8).T.tobytes()


def packed_json(value: Any) -> str:
    """Return plain values as a text: base64 of zlib of JSON."""
    return _text(json.dumps(value, separators=(",", ":"), allow_nan=False).encode())


def check_integers(text: str, count: int) -> None:
    """Check that a text of `packed_integers` can be unpacked, and has as many integers as are needed.

    Raises:
        ValueError: The text is damaged, or has another number of integers.
    """
    size = len(_content(text[1:], 4 * count))
    if text[:1] not in ("p", "d") or size != 4 * count:
        raise ValueError(f"expected {count} packed numbers, got {size / 4:g}")


def unpacked_json(text: str) -> Any:
    """Return the plain values of a text of `packed_json`.

    Raises:
        ValueError: The text is damaged.
    """
    return parse_json(_content(text, MOST_BYTES))


def inflated(packed: bytes, most: int) -> bytes:
    """Decompress bytes of zlib.

    Args:
        packed: The compressed bytes.
        most: Largest number of bytes to return.

    Raises:
        ValueError: The bytes are damaged, or there are more.
    """
    reader = zlib.decompressobj()
    try:
        content = reader.decompress(packed, most + 1)
    except zlib.error as error:
        raise ValueError(f"it is damaged: {error}") from error
    if len(content) > most or not reader.eof:
        raise ValueError(f"it is not complete, or has more than {most} bytes")
    return content


def _content(text: str, most: int) -> bytes:
    try:
        packed = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"it is not base64: {error}") from error
    return inflated(packed, most)


def _text(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode("ascii")
