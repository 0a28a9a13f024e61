"""Support for both ``lightning.pytorch`` and ``pytorch_lightning``, whose classes have the same names but differ."""

from __future__ import annotations

import sys
from typing import Any


def class_names(value: Any) -> list[str]:
    """Return the names of a value's class and of its base classes, in method resolution order."""
    return [cls.__name__ for cls in type(value).__mro__]


def join_namespaces(callback: type) -> None:
    """Make a callback of ``lightning.pytorch`` a subclass of ``pytorch_lightning.Callback`` too.

    Both Trainers accept both callbacks, but a LightningCLI accepts only those of its own namespace. Nothing happens
    unless ``pytorch_lightning`` is imported already: importing it takes longer than importing all of this package.
    """
    other = sys.modules.get("pytorch_lightning")
    if other is not None and not issubclass(callback, other.Callback):
        callback.__bases__ += (other.Callback,)
