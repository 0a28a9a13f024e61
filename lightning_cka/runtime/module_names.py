"""The names of a model's submodules, without what wrappers add to them."""

from __future__ import annotations

from torch import nn


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Submodules by dotted name, without the ``_orig_mod`` segments that `torch.compile` adds."""
    layers = {}
    for name, module in model.named_modules():
        name = without_compiled(name)
        if name:
            # The module inside a compiled wrapper comes after it, and is the one whose hooks fire.
            layers[name] = module
    return layers


def without_compiled(name: str) -> str:
    """A dotted name without the ``_orig_mod`` segments that `torch.compile` adds."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
