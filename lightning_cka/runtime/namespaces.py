"""The classes of ``lightning.pytorch`` and of ``pytorch_lightning`` are not the same, but their names are."""

from __future__ import annotations

import sys
from typing import Any


def class_names(value: Any) -> list[str]:
    """Names of a value's class and of those that it inherits from, nearest first."""
    return [cls.__name__ for cls in type(value).__mro__]


def join_namespaces(callback: type) -> None:
    """Make a callback of ``lightning.pytorch`` one of ``pytorch_lightning`` too, once that was imported.

    Either Trainer takes either callback, but a LightningCLI only those of its own. To import the other one just in case
    would take longer than all of this package.
    """
    other = sys.modules.get("pytorch_lightning")
    if other is not None and not issubclass(callback, other.Callback):
        callback.__bases__ += (other.Callback,)
