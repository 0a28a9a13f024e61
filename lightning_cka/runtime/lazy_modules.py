"""Raise an error for a model whose weights do not exist before its first forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from torch import nn
from torch.nn.parameter import is_lazy

from lightning_cka.runtime.text import shortened


def check_initialized(model: nn.Module, hidden_modules: Iterable[nn.Module] = ()) -> None:
    """Check that all parameters and buffers have values. The probe set must not decide their shapes.

    Args:
        model: The model.
        hidden_modules: Modules that the model uses, but that ``modules()`` does not contain.

    Raises:
        ValueError: A parameter or a buffer of a lazy module, such as `torch.nn.LazyLinear`, has no values yet.
    """
    lazy = [name for name, tensor in chain(model.named_parameters(), model.named_buffers()) if is_lazy(tensor)]
    for module in hidden_modules:
        own = chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
        lazy += [f"{type(module).__name__}.{name}" for name, tensor in own if is_lazy(tensor)]
    if lazy:
        raise ValueError(
            f"{type(model).__name__} has lazy modules, whose weights get their shapes from the first batch: "
            f"{shortened(lazy)}. Pass one batch to the model first, as in `model(batch)`; in a Trainer, the sanity "
            "check (num_sanity_val_steps=2) does so"
        )
