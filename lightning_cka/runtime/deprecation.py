"""Old names of attributes and arguments: they keep working, with a `DeprecationWarning`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

C = TypeVar("C", bound=type)


def renamed_attribute(old: str, new: str) -> property:
    """A property ``old`` that returns the attribute ``new``."""
    return property(lambda self: read_renamed(self, old, new), doc=f"Deprecated: use ``{new}``.")


def read_renamed(owner: Any, old: str, new: str) -> Any:
    """The attribute ``new``, with a warning that ``old`` is deprecated."""
    _warn(old, new)
    return getattr(owner, new)


def renamed_arguments(**names: str) -> Callable[[C], C]:
    """A class decorator: the constructor takes the old names of its keyword arguments too.

    Args:
        **names: the new name, by the old one.
    """

    def decorate(cls: C) -> C:
        init = cls.__init__  # type: ignore[misc]  # Of the class, not of an instance.

        @wraps(init)
        def translated(self: Any, *args: Any, **kwargs: Any) -> None:
            for old in names.keys() & kwargs.keys():
                _warn(old, names[old])
                kwargs[names[old]] = kwargs.pop(old)
            init(self, *args, **kwargs)

        cls.__init__ = translated  # type: ignore[misc]  # Likewise.
        return cls

    return decorate


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old!r} is deprecated: use {new!r}", DeprecationWarning, stacklevel=4)
