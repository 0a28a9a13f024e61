"""Names of a model's submodules, without the segments that `torch.compile` adds."""

from __future__ import annotations

from torch import nn


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return submodules by dotted name, without the ``_orig_mod`` segments that `torch.compile` adds."""
    layers = {}
    for name, module in model.named_modules():
        name = without_compiled(name)
        if name:
            # A compiled wrapper and its inner module share a name. The inner one comes later, and its hooks fire.
            layers[name] = module
    return layers


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
