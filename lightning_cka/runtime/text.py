"""Short descriptions of values, functions and lists of names, for messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lightning_cka.runtime.nested import dataclass_values


def describe(value: Any) -> str:
    """Return a short description of a value: shape and dtype of tensors and arrays, the contents of containers."""
    if isinstance(value, Tensor) and value.is_nested:
        return f"nested Tensor of {value.size(0)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Tensor):
        return f"Tensor{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, np.ndarray):
        return f"NumPy array{tuple(value.shape)} {value.dtype}"
    parts = value if isinstance(value, Mapping) else dataclass_values(value)
    if parts or isinstance(value, Mapping):
        return f"{type(value).__name__} of {{{', '.join(f'{k!r}: {describe(v)}' for k, v in parts.items())}}}"
    if isinstance(value, list | tuple):
        listed = [describe(v) for v in value[:4]] + ["..."] * (len(value) > 4)
        return f"{type(value).__name__} of ({', '.join(listed)})"
    return type(value).__name__


def describe_function(function: Callable[..., Any] | str | None) -> str:
    """Return a function's qualified name, which is the same in every process; for other callables, their class's."""
    if function is None or isinstance(function, str):
        return str(function)
    owner = function if hasattr(function, "__qualname__") else type(function)
    return f"{owner.__module__}.{owner.__qualname__}"


def shortened(names: Sequence[str], limit: int = 8) -> str:
    """Return names in one line: at most ``limit`` of them, then the number of the others."""
    rest = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def one_line(text: str, limit: int = 300) -> str:
    """Return a text in one line of at most ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def about_file(name: str, problem: str) -> str:
    """Return a message about a file, in one line of at most 300 characters: the file's name and the problem."""
    return one_line(f"{one_line(repr(name), 120)} {problem}")
