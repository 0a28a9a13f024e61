"""The classes of ``lightning.pytorch`` and of ``pytorch_lightning`` are not the same, but their names are."""

from __future__ import annotations

from typing import Any


def class_names(value: Any) -> list[str]:
    """Names of a value's class and of those that it inherits from, nearest first."""
    return [cls.__name__ for cls in type(value).__mro__]
