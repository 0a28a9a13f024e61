"""Import what an option names as ``package.module:name``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any


@contextmanager
def modules_of_current_folder() -> Iterator[None]:
    """Let modules in the current folder be imported, as ``python -m`` does."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def imported(name: str, option: str) -> Any:
    """Import an object.

    Args:
        name: Module and name, such as "package.module:Net".
        option: The option that has it, for messages.

    Raises:
        ValueError: The name has another form, or there is no such module or name. Other errors are those of the module.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"{option} must be like package.module:name, but is {name!r}")
    if module_name.endswith(".py") or "/" in module_name:
        as_module = module_name.removesuffix(".py").replace("/", ".").strip(".")
        raise ValueError(f"{option} names a module, not a file: write {as_module}:{attribute} instead of {name!r}")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # The module exists, but imports another one that does not.
        raise ValueError(
            f"{option}: there is no module {error.name!r}. Install it, or run the command in the folder that has it"
        ) from error
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        raise ValueError(f"{option}: the module {module_name!r} has no {attribute!r}") from error


def called(make: Callable[[], Any], name: str, option: str) -> Any:
    """Call a user's function, and name it in errors.

    Raises:
        RuntimeError: It raised an error, which is the cause of this one.
    """
    try:
        return make()
    except Exception as error:
        raise RuntimeError(f"{option}: {name}() raised {type(error).__name__}: {error}") from error
