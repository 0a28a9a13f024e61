"""Old names of attributes and arguments, which still work and emit a `DeprecationWarning`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

C = TypeVar("C", bound=type)


def renamed_attribute(old: str, new: str) -> property:
    """Return a property that warns that ``old`` is deprecated, and returns the attribute ``new``."""
    return property(lambda self: read_renamed(self, old, new), doc=f"Deprecated: use ``{new}``.")


def read_renamed(owner: Any, old: str, new: str) -> Any:
    """Warn that ``old`` is deprecated, and return the attribute ``new``.

    Call this from the property ``old`` itself: the warning points at the line that reads the property.
    """
    _warn(old, new, stacklevel=3)
    return getattr(owner, new)


def renamed_arguments(**names: str) -> Callable[[C], C]:
    """Return a class decorator that lets the constructor accept old names of keyword arguments.

    Args:
        **names: The new name of each old name.
    """

    def decorate(cls: C) -> C:
        init = cls.__init__  # type: ignore[misc]  # mypy cannot know which class defines it.

        @wraps(init)
        def translated(self: Any, *args: Any, **kwargs: Any) -> None:
            for old in names.keys() & kwargs.keys():
                _warn(old, names[old], stacklevel=2)
                kwargs[names[old]] = kwargs.pop(old)
            init(self, *args, **kwargs)

        cls.__init__ = translated  # type: ignore[misc]  # mypy cannot know which class defines it.
        return cls

    return decorate


def _warn(old: str, new: str, stacklevel: int) -> None:
    """Warn at a line of the user.

    Args:
        old: Deprecated name.
        new: Name to use.
        stacklevel: As for `warnings.warn`, counted from the caller of this function.
    """
    warnings.warn(f"{old!r} is deprecated: use {new!r}", DeprecationWarning, stacklevel=stacklevel + 1)
