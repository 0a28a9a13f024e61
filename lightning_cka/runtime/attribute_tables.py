"""Read the attributes of an object without running its code, and set them back."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch

_MISSING = object()


class AttributeTable(NamedTuple):
    """Attributes of one object."""

    kept: dict[str, Any]
    """Values by name."""
    restore: Callable[[], object]
    """Sets the attributes to these values, and deletes others."""


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

    return AttributeTable(kept, restore)


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

    return AttributeTable(kept, restore)


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

    return AttributeTable(kept, restore)


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
