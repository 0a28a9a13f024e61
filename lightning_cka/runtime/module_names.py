"""Names of a model's submodules, without the segments that wrappers such as `torch.compile` add."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from typing import Any

from torch import nn


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return submodules by dotted name, without the segments that transparent wrappers add; see `is_transparent`."""
    layers = {}
    unwrap = unwrapped_names(model)
    for name, module in model.named_modules():
        name = unwrap(name)
        if name:
            # A wrapper and its inner module share a name. The inner one comes later, and its hooks fire.
            layers[name] = module
    return layers


def unwrapped_names(model: nn.Module) -> Callable[[str], str]:
    """Return a function that removes the segments of transparent wrappers from names of the model.

    It takes names of modules, parameters and buffers.
    """
    wrappers = {id(module) for module in model.modules() if is_transparent(module)}

    def unwrap(name: str) -> str:
        kept: list[str] = []
        place: nn.Module | None = model
        for part in name.split("."):
            # Some wrappers leave their own segment out of the keys of weights.
            while place is not None and id(place) in wrappers and part not in place._modules:
                place = _only_child(place)
            if id(place) not in wrappers:
                kept.append(part)
            place = None if place is None else place._modules.get(part)
        return ".".join(kept)

    return unwrap if wrappers else lambda name: name


def is_transparent(module: nn.Module) -> bool:
    """Return whether a module only wraps another one, as `torch.compile` and activation checkpointing do.

    Such a module has one child, neither parameters nor buffers of its own, and passes the child's attributes on.
    """
    inner = _only_child(module)
    if inner is None:
        return False
    outer: nn.Module | None = inner
    while outer is not None:  # The attributes of a wrapper of a wrapper are those of the innermost module.
        for name, value in _own_attributes(outer).items():
            if not hasattr(nn.Module, name) and name not in vars(module) and name not in module._modules:
                return not hasattr(type(module), name) and getattr(module, name, None) is value
        outer = _only_child(outer)
    return False


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside transparent wrappers, or the module itself."""
    while is_transparent(module):
        module = next(iter(module.children()))
    return module


def _only_child(module: nn.Module) -> nn.Module | None:
    own = [*module._parameters.values(), *module._buffers.values()]
    children = list(module._modules.values())
    return children[0] if len(children) == 1 and not any(value is not None for value in own) else None


def _own_attributes(module: nn.Module) -> dict[str, Any]:
    """Return what a module has and a plain `nn.Module` has not, submodules and weights first."""
    plain = vars(nn.Module())
    found = {**module._modules, **module._parameters, **module._buffers, **vars(module)}
    return {name: value for name, value in found.items() if value is not None and name not in plain}


def is_compiled(model: nn.Module) -> bool:
    """Return whether `torch.compile` has compiled a model or a part of it, as Lightning does it or in place."""
    return getattr(model, "_compiler_ctx", None) is not None or any(
        hasattr(each, "_orig_mod") or getattr(each, "_compiled_call_impl", None) is not None for each in model.modules()
    )


def takes_hooks(module: nn.Module) -> bool:
    """Whether forward hooks can be registered on a module. A ScriptModule takes none."""
    try:
        module.register_forward_hook(_do_nothing).remove()
    except Exception:  # noqa: BLE001  # A module may define the method as it likes.
        return False
    return True


def _do_nothing(*_args: object) -> None:
    pass


def without_compiled(name: str) -> str:
    """Return a dotted name without the ``_orig_mod`` segments that `torch.compile` adds."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def match_keys(keys: Iterable[str], model_keys: Iterable[str]) -> dict[str, str]:
    """Find the key of a model's ``state_dict`` for each key of a file, whose model may have been wrapped.

    A wrapper adds a segment to keys, which is the only one at its place. Such segments are left out if that gives a
    key of the model.

    Args:
        keys: Keys in the file.
        model_keys: Keys of the model, without the segments of its own wrappers.

    Returns:
        The model's key for each key of the file. A key that fits no key of the model, or one that another key fits
        too, is returned as it is.
    """
    keys, model_keys = list(keys), set(model_keys)
    siblings: dict[str, set[str]] = {}
    for key in keys:
        parts = key.split(".")
        for i, part in enumerate(parts):
            siblings.setdefault(".".join(parts[:i]), set()).add(part)
    found = {key: _match_key(key, model_keys, siblings) for key in keys}
    return found if len(set(found.values())) == len(found) else {key: key for key in keys}


def _match_key(key: str, model_keys: set[str], siblings: Mapping[str, set[str]]) -> str:
    """Remove as few segments as possible. The last one, the name of a weight, stays."""
    parts = key.split(".")
    single = [i for i in range(len(parts) - 1) if len(siblings[".".join(parts[:i])]) == 1]
    for count in range(len(single) + 1):
        for removed in combinations(single, count):
            shorter = ".".join(part for i, part in enumerate(parts) if i not in removed)
            if shorter in model_keys:
                return shorter
    return key
