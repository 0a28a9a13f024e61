"""Read the attributes of an object and the entries of a container without running code, and set them back."""

from __future__ import annotations

import types
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from functools import partial
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import nn

from lightning_cka.runtime.left_alone import is_framework

HOOKS = frozenset(name for name in vars(nn.Module()) if "_hooks" in name)
"""Attributes of each module that hold its hooks."""

_MISSING = object()


def _put_nothing(_key: Any, _value: Any) -> None:
    pass


class AttributeTable(NamedTuple):
    """Attributes of one object, or entries of one container."""

    kept: dict[Any, Any]
    """Values by name, key or position."""
    restore: Callable[[], object]
    """Sets the attributes to these values, and deletes others."""
    put: Callable[[Any, Any], object] = _put_nothing
    """Sets one attribute for the time being; does nothing where that is not possible."""


def instance_table(value: object, left_alone: Collection[str] = ()) -> AttributeTable:
    """Return the attributes in an object's ``__dict__``, without those in ``left_alone``."""
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except AttributeError:
        attributes = None
    if not isinstance(attributes, dict):
        return AttributeTable({}, lambda: None)
    kept = {name: entry for name, entry in attributes.items() if name not in left_alone}

    def restore() -> None:
        for name in [name for name in attributes if name not in kept and name not in left_alone]:
            del attributes[name]
        attributes.update(kept)

    return AttributeTable(kept, restore, attributes.__setitem__)


def hook_table(module: nn.Module) -> AttributeTable:
    """Return the hooks of a module. Those that a forward pass adds or removes are removed or added.

    Hooks of frameworks stay as they are then: FSDP2 adds some in its first forward pass, and needs them later.
    """
    attributes = vars(module)
    tables = {name: attributes[name] for name in HOOKS if isinstance(attributes.get(name), dict)}
    kept = _own_hooks(tables)

    def restore() -> None:
        attributes.update(tables)
        now = _own_hooks(tables)
        if list(now) != list(kept) or not all(map(is_, now.values(), kept.values())):
            for name, key in now:
                del tables[name][key]
            for (name, key), hook in kept.items():
                tables[name][key] = hook

    return AttributeTable(kept, restore)


def _own_hooks(tables: Mapping[str, dict[Any, Any]]) -> dict[tuple[str, Any], Any]:
    """Return the hooks that no framework has added, by their table and key."""
    hooks = {(name, key): hook for name, table in tables.items() for key, hook in table.items()}
    return {place: hook for place, hook in hooks.items() if not _is_of_framework(hook)}


def _is_of_framework(hook: Any) -> bool:
    """Whether a hook is a function or an object of a framework, or a bound method of one."""
    function = getattr(hook, "hook", hook)  # Hooks of state dicts are wrapped.
    function = getattr(function, "func", function)  # A partial.
    definition = function if hasattr(function, "__qualname__") else type(function)
    return is_framework(str(getattr(definition, "__module__", "")))


def slot_table(value: object) -> AttributeTable:
    """Return the attributes in an object's ``__slots__``."""
    slots = {
        f"{cls.__name__}.{name}": slot
        for cls in type(value).__mro__
        if "__slots__" in vars(cls)
        for name, slot in vars(cls).items()
        if isinstance(slot, types.MemberDescriptorType)
    }
    kept = {name: entry for name, slot in slots.items() if (entry := _read(slot, value)) is not _MISSING}

    def restore() -> None:
        for name, slot in slots.items():
            if name in kept:
                slot.__set__(value, kept[name])
            elif _read(slot, value) is not _MISSING:
                slot.__delete__(value)

    return AttributeTable(kept, restore, lambda name, entry: slots[name].__set__(value, entry))


def _read(slot: types.MemberDescriptorType, value: object) -> Any:
    try:
        return slot.__get__(value, type(value))
    except AttributeError:
        return _MISSING


def class_table(cls: type) -> AttributeTable:
    """Return the data among the attributes of a class: no methods, properties or names of Python's own."""
    kept = _data(cls)

    def restore() -> None:
        now = _data(cls)
        for name in now.keys() - kept.keys():
            type.__delattr__(cls, name)
        for name, entry in kept.items():
            if now.get(name, _MISSING) is not entry:
                type.__setattr__(cls, name, entry)

    return AttributeTable(kept, restore, lambda name, entry: type.__setattr__(cls, name, entry))


def _data(cls: type) -> dict[str, Any]:
    return {
        name: entry
        for name, entry in vars(cls).items()
        if not name.startswith(("__", "_abc_")) and not hasattr(type(entry), "__get__")
    }


def script_table(module: torch.jit.ScriptModule) -> AttributeTable:
    """Return the attributes that a ScriptModule keeps in C++, without its buffers. A frozen one has none."""
    if not hasattr(module, "_concrete_type"):
        return AttributeTable({}, lambda: None)
    own = {"training", "_is_full_backward_hook", *module._buffers.keys()}
    names = [name for name in module._concrete_type.get_attributes() if name not in own]
    kept = {name: getattr(module, name) for name in names if hasattr(module, name)}

    def restore() -> None:
        for name, entry in kept.items():
            setattr(module, name, entry)

    return AttributeTable(kept, restore)


def cell_table(cell: types.CellType) -> AttributeTable:
    """Return the value of a variable in a closure."""
    try:
        kept = {"cell": cell.cell_contents}
    except ValueError:  # A variable without a value.
        return AttributeTable({}, lambda: None)

    def restore() -> None:
        cell.cell_contents = kept["cell"]

    return AttributeTable(kept, restore, lambda _, value: setattr(cell, "cell_contents", value))


def mapping_table(mapping: dict[Any, Any]) -> AttributeTable:
    """Return the entries of a dictionary, in their order."""
    base = OrderedDict if isinstance(mapping, OrderedDict) else dict  # Subclasses may run code of their own.
    kept = {key: value for key, value in base.items(mapping)}  # noqa: C416

    def restore() -> None:
        if list(base.keys(mapping)) != list(kept) or not all(map(is_, base.values(mapping), kept.values())):
            base.clear(mapping)
            for key, value in kept.items():
                base.__setitem__(mapping, key, value)

    return AttributeTable(kept, restore, partial(base.__setitem__, mapping))


def sequence_table(values: list[Any] | deque[Any]) -> AttributeTable:
    """Return the entries of a list."""
    base: Any = deque if isinstance(values, deque) else list
    kept = dict(enumerate(base.__iter__(values)))

    def restore() -> None:
        if base.__len__(values) != len(kept) or not all(map(is_, base.__iter__(values), kept.values())):
            base.clear(values)
            base.extend(values, kept.values())

    return AttributeTable(kept, restore, partial(base.__setitem__, values))


def set_table(values: set[Any]) -> AttributeTable:
    """Return the entries of a set."""
    kept = dict(enumerate(set.__iter__(values)))

    def restore() -> None:
        if set(set.__iter__(values)) != set(kept.values()):
            set.clear(values)
            set.update(values, kept.values())

    return AttributeTable(kept, restore)
