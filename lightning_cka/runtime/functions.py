"""What functions can write to besides their arguments: closures, defaults, attributes and global names."""

from __future__ import annotations

import inspect
import sys
import sysconfig
import types
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

from lightning_cka.runtime.attribute_tables import AttributeTable, cell_table, instance_table
from lightning_cka.runtime.left_alone import is_framework

_ABSENT = object()
_CALLED_BY_FRAMEWORKS = ("forward", "on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
_NOT_IN_FORWARD = frozenset(
    {"__init_subclass__", "__class_getitem__", "__reduce__", "__reduce_ex__", "__repr__", "__del__"}
)
_INSTALLED = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
_DEFINITIONS = (types.FunctionType, types.ModuleType, type)


def code_names(code: types.CodeType) -> set[str]:
    """Return the names of globals, attributes and methods in a function's code, and in that of functions inside it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= code_names(constant)
    return names


def function_tables(function: types.FunctionType, names: Collection[str]) -> Iterator[AttributeTable]:
    """Yield what a function holds: its attributes, defaults, closure, and the globals that its code names.

    Args:
        function: The function.
        names: The names in its code, from `code_names`.
    """
    yield instance_table(function)
    yield AttributeTable(dict(enumerate(function.__defaults__ or ())), lambda: None)
    yield AttributeTable(dict(function.__kwdefaults__ or {}), lambda: None)
    for cell in function.__closure__ or ():
        yield cell_table(cell)
    yield namespace_table(function.__globals__, names)


def namespace_table(namespace: dict[str, Any], names: Collection[str]) -> AttributeTable:
    """Return the globals of a module that have one of these names."""
    kept = {name: namespace[name] for name in names if name in namespace}
    absent = [name for name in names if name not in namespace]

    def restore() -> None:
        for name, value in kept.items():
            if namespace.get(name, _ABSENT) is not value:
                namespace[name] = value
        for name in absent:
            # An import that has taken place is not undone: it would not be repeated.
            if name in namespace and not isinstance(namespace[name], _DEFINITIONS):
                del namespace[name]

    return AttributeTable(kept, restore, namespace.__setitem__)


def functions_in(entry: Any) -> list[types.FunctionType]:
    """Return the functions behind an entry of a class: a method, a property."""
    if isinstance(entry, property):
        found = [entry.fget, entry.fset]
    elif isinstance(entry, cached_property):
        found = [entry.func]
    else:
        found = [entry.__func__ if isinstance(entry, staticmethod | classmethod) else entry]
    return [each for each in found if isinstance(each, types.FunctionType)]


def is_installed(definition: types.FunctionType | types.ModuleType) -> bool:
    """Whether a function or a module is part of an installed package, and not of the user's own program."""
    if isinstance(definition, types.ModuleType):
        return str(getattr(definition, "__file__", "")).startswith(_INSTALLED)
    return definition.__code__.co_filename.startswith(_INSTALLED)


def is_own(definition: types.FunctionType | types.ModuleType | type) -> bool:
    """Whether a function, a class or a module may hold state of a model: not if it is Python's or a framework's."""
    is_module = isinstance(definition, types.ModuleType)
    name = str(getattr(definition, "__name__" if is_module else "__module__", ""))
    return name.partition(".")[0] not in sys.stdlib_module_names and not is_framework(name)


class ReachableMethods:
    """The methods of some classes that a forward pass may call, by the names in the code of those that it does call.

    Args:
        callers: Functions and callable objects that call the first methods.

    Attributes:
        names: The names that occur in the code that was found so far.
    """

    def __init__(self, callers: Iterable[object] = ()) -> None:
        self.names = set(_CALLED_BY_FRAMEWORKS)
        for caller in callers:
            function = inspect.unwrap(getattr(caller, "func", caller))  # type: ignore[arg-type]
            own = [*functions_in(function), *functions_in(inspect.getattr_static(type(caller), "__call__", None))]
            self.names.update(*(code_names(each.__code__) for each in own))
        self._classes: dict[type, set[str]] = {}

    def add_class(self, cls: type) -> None:
        """Add a class whose methods may be called."""
        self._classes.setdefault(cls, set())

    def new_methods(self) -> list[types.FunctionType]:
        """Return the methods that were not returned before. Special methods, such as ``__add__``, may always run."""
        found: list[types.FunctionType] = []
        for cls, returned in self._classes.items():
            entries = vars(cls)
            special = {name for name in entries if name.startswith("__") and name not in _NOT_IN_FORWARD}
            new = (entries.keys() & self.names | special) - returned
            returned |= new
            found += [function for name in sorted(new) for function in functions_in(entries[name])]
        return found
