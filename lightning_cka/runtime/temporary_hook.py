"""`TemporaryHook`: a forward hook that copies and pickles of the model do not contain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class TemporaryHook:
    """A forward hook of a function that may hold anything.

    A model may copy or pickle itself in ``forward``. In the copy, a hook that does nothing takes the place of this one.

    Args:
        function: Called with the output.
    """

    def __init__(self, function: Callable[[Any], object]) -> None:
        self._function = function

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> None:
        """Call the function."""
        self._function(output)

    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        """Return what a copy or a pickle has instead."""
        return _inert_hook, ()


class TemporaryInputHook(TemporaryHook):
    """A forward pre-hook with keyword arguments. The function is called with a list: arguments, keyword arguments."""

    def __call__(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        """Call the function."""
        self._function([args, kwargs])


def _inert_hook() -> Callable[..., None]:
    return _do_nothing


def _do_nothing(*_args: Any) -> None:
    pass
