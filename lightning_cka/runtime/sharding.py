"""Models whose weights are sharded over processes (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cka.runtime.module_names import without_compiled
from lightning_cka.runtime.namespaces import class_names


def fsdp_modules(model: nn.Module) -> list[nn.Module]:
    """Modules whose weights `torch.distributed.fsdp.fully_shard` has shared out to processes."""
    return [module for module in model.modules() if "FSDPModule" in class_names(module)]


def is_resharded(module: nn.Module) -> bool:
    """Whether a module's weights are in shards, and not gathered by a forward pass that has left them so."""
    return all("DTensor" in class_names(parameter) for parameter in module.parameters())


def reshard(modules: Iterable[nn.Module]) -> None:
    """Free what a forward pass has gathered: what is written to it is lost, and it is of the weights of then."""
    for module in modules:
        module.reshard()  # type: ignore[operator]  # Of an FSDPModule.


def is_sharded(model: nn.Module) -> bool:
    """Whether processes share the model's weights, as with `torch.distributed.fsdp.fully_shard`."""
    return bool(fsdp_modules(model)) or any("DTensor" in class_names(parameter) for parameter in model.parameters())


@contextmanager
def lent_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """A sharded model with these whole weights for a while; with its own ones again thereafter, also on an error.

    Every process must call this.

    Args:
        model: sharded, which cannot be copied.
        weights: of the model's architecture, by keys of its ``state_dict``.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    modules = fsdp_modules(model)
    gathered = [module for module in modules if not is_resharded(module)]
    reshard(modules)
    own = [(tensor, tensor.detach().clone()) for tensor in chain(model.parameters(), model.buffers())]
    named: dict[str, Any] = {without_compiled(key): value for key, value in weights.items()}
    try:
        set_model_state_dict(model, named, options=StateDictOptions(full_state_dict=True))
        yield model
    finally:
        reshard(modules)
        with torch.no_grad():
            for tensor, kept in own:
                tensor.copy_(kept)
        for module in gathered:
            module.unshard()  # type: ignore[operator]  # Of an FSDPModule.
