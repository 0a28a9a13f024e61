"""The error message for a model whose forward pass fails on a probe batch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.runtime.module_names import unwrapped
from lightning_cka.runtime.text import describe


class ForwardFailedError(ValueError):
    """A model could not be shown a batch."""


def why_forward_failed(model: nn.Module, data: Any, forward_settings: ForwardSettings, error: Exception) -> str:
    """Describe what the model and the batch are, and which ``forward_fn`` to pass.

    Args:
        model: The model.
        data: The batch that it was called on.
        forward_settings: How it was called.
        error: What it raised.
    """
    name = type(model).__name__
    first_line = (str(error).splitlines() or [""])[0][:300]
    cause = f"it raised {type(error).__name__}: {first_line}"
    argument = forward_settings.argument
    if _has_arrays(data):
        cause += f". Batches with NumPy arrays must be converted to tensors, for example in {argument}="
    if forward_settings.forward_fn is not None and not forward_settings.is_shared:
        return f"{name} could not be shown a probe batch with this {argument}. The batch is a {describe(data)}; {cause}"
    if forward_settings.forward_fn is not None:
        call = f"{argument}=lambda module, batch: {_suggested_call('module', model, data)}"
        such_as = f", such as {call}" if isinstance(data, Mapping) else ""
        return (
            f"{name} could not be shown a probe batch with forward_fn=, which shows batches to the model: pass "
            f"{argument}=, a function of the reference and the batch{such_as}. The batch is a {describe(data)}; {cause}"
        )
    if not _defines_forward(model):
        return (
            f"{name} could not be shown a probe batch, since it defines no forward: pass {argument}=, a function of "
            f"the module and the batch, such as {argument}=lambda module, batch: {_call_of_a_child(model, data)}. The "
            f"batch is a {describe(data)}"
        )
    return (
        f"{name} could not be shown a probe batch: pass {argument}=, a function of the module and the batch. Its "
        f"forward takes ({_parameters(model)}), the batch is a {describe(data)}; {cause}"
    )


def _has_arrays(data: Any) -> bool:
    """Whether a batch is a NumPy array, or has one as an entry."""
    values = data.values() if isinstance(data, Mapping) else data if isinstance(data, list | tuple) else [data]
    return any(isinstance(value, np.ndarray) for value in values)


def _defines_forward(model: nn.Module) -> bool:
    owner = next(owner for owner in type(model).__mro__ if "forward" in vars(owner))
    return owner.__name__ not in ("Module", "LightningModule")


def _call_of_a_child(model: nn.Module, data: Any) -> str:
    """Suggest a call of the child module that has the most parameters."""
    sizes = {child: sum(p.numel() for p in module.parameters()) for child, module in model.named_children()}
    child = max(sizes, key=lambda child: sizes[child], default="net")
    return _suggested_call(f"module.{child}", getattr(model, child, None), data)


def _suggested_call(name: str, module: nn.Module | None, data: Any) -> str:
    """Suggest how to call a module on a batch: of a mapping, with the entries that its forward has parameters for."""
    first, argument = (data[0], "batch[0]") if isinstance(data, list | tuple) and data else (data, "batch")
    if not isinstance(first, Mapping):
        return f"{name}({argument})"
    known = inspect.signature(unwrapped(module).forward).parameters if module is not None else {}
    if entries := [f"{key}={argument}[{key!r}]" for key in first if key in known]:
        return f"{name}({', '.join(entries)})"
    return f"{name}(**{argument})"


def _parameters(model: nn.Module) -> str:
    """List the parameters of ``forward``, without annotations and defaults."""
    parameters = inspect.signature(unwrapped(model).forward).parameters.values()
    return ", ".join(str(p.replace(annotation=p.empty, default=p.empty)) for p in parameters)
