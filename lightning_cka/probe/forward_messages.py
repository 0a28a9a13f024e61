"""Why a model could not be shown a batch, and what to pass."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.runtime.text import describe


def why_forward_failed(model: nn.Module, data: Any, forward_settings: ForwardSettings, error: Exception) -> str:
    name = type(model).__name__
    cause = f"it raised {type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
    if forward_settings.forward_fn is not None:
        return f"{name} could not be shown a probe batch with this forward_fn. The batch is a {describe(data)}; {cause}"
    defined_by = next(owner.__name__ for owner in type(model).__mro__ if "forward" in vars(owner))
    if defined_by in ("Module", "LightningModule"):
        sizes = {child: sum(p.numel() for p in module.parameters()) for child, module in model.named_children()}
        child = max(sizes, key=lambda child: sizes[child], default="net")
        first, inputs = (data[0], "batch[0]") if isinstance(data, list | tuple) and data else (data, "batch")
        call = f"module.{child}({'**' if isinstance(first, Mapping) else ''}{inputs})"
        return (
            f"{name} could not be shown a probe batch, since it defines no forward: pass forward_fn=, a function of "
            f"the module and the batch, such as forward_fn=lambda module, batch: {call}. The batch is a "
            f"{describe(data)}"
        )
    parameters = inspect.signature(model.forward).parameters.values()
    takes = ", ".join(str(p.replace(annotation=p.empty, default=p.empty)) for p in parameters)
    return (
        f"{name} could not be shown a probe batch: pass forward_fn=, a function of the module and the batch. Its "
        f"forward takes ({takes}), the batch is a {describe(data)}; {cause}"
    )
