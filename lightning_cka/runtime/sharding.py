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
    """Return the modules that were wrapped with `torch.distributed.fsdp.fully_shard`."""
    return [module for module in model.modules() if "FSDPModule" in class_names(module)]


def is_resharded(module: nn.Module) -> bool:
    """Return whether a module's weights are shards; False if a forward pass has left them gathered."""
    return all("DTensor" in class_names(parameter) for parameter in module.parameters())


def reshard(modules: Iterable[nn.Module]) -> None:
    """Free the weights that a forward pass has gathered.

    Gathered weights are copies: what is written to them is lost, and they do not follow changes of the shards.
    """
    for module in modules:
        module.reshard()  # type: ignore[operator]  # A method of FSDPModule.


def is_sharded(model: nn.Module) -> bool:
    """Return whether a model's weights are distributed over processes, as by `fully_shard`."""
    return bool(fsdp_modules(model)) or any("DTensor" in class_names(parameter) for parameter in model.parameters())


@contextmanager
def temporary_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """Load other weights into a model for a while; restore its own at the end, also after an error.

    If a model cannot be copied, as if it is sharded, a reference of the same architecture borrows the live model. Every
    process must call this.

    Args:
        model: The model.
        weights: Full weights by keys of the model's ``state_dict``.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    modules = fsdp_modules(model)
    gathered = [module for module in modules if not is_resharded(module)]
    reshard(modules)
    own = [(tensor, tensor.detach().clone()) for tensor in chain(model.parameters(), model.buffers())]
    named: dict[str, Any] = {without_compiled(key): value for key, value in weights.items()}
    try:
        if is_sharded(model):
            set_model_state_dict(model, named, options=StateDictOptions(full_state_dict=True))
        else:
            model.load_state_dict(weights)
        yield model
    finally:
        reshard(modules)
        with torch.no_grad():
            for tensor, copied in own:
                tensor.copy_(copied)
        for module in gathered:
            module.unshard()  # type: ignore[operator]  # A method of FSDPModule.
