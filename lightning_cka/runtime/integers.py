"""Check arguments that are integers."""

from __future__ import annotations

import operator
import sys
from typing import Any


def to_integer(name: str, value: Any) -> int:
    """Return an argument as a Python integer.

    Args:
        name: Name of the argument, for messages.
        value: A Python or NumPy integer.

    Raises:
        TypeError: It is not an integer.
    """
    try:
        return operator.index(value)
    except TypeError:
        text = repr(value) if isinstance(value, float | str) and len(repr(value)) < 50 else f"a {type(value).__name__}"
        raise TypeError(f"{name} must be an integer, but is {text}") from None


def at_least(minimum: int, name: str, value: Any) -> int:
    """Return an argument as an integer of the machine's size: for a number of samples or epochs, more is the same.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is below the minimum.
    """
    number = max(-sys.maxsize, min(to_integer(name, value), sys.maxsize))
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, but is {number}")
    return number
