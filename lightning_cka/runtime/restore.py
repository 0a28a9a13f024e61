"""Leave a model as it was found."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torchmetrics import Metric

from lightning_cka.runtime.nested import map_tensors
from lightning_cka.runtime.sharding import fsdp_modules, is_resharded, reshard


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, no compiled graphs or fused transformer layers; all as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    with ExitStack() as stack:
        # Outside inference mode, so that what is kept can be used anywhere.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # Else nothing is compiled, and importing it takes seconds.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        # Of transformer layers: it skips the hooks of their children, and is not what training computes.
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(reshard, [module for module in fsdp_modules(model) if is_resharded(module)])
        for module, _ in modes:
            state = _state(module)
            stack.callback(_restore_state, module, state)
            # Metrics are lent a copy: their own tensors may be part of a graph that is still needed.
            module.__dict__.update(map_tensors(state["metric"], torch.clone))
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, training in modes:
                module.training = training


def _state(module: nn.Module) -> dict[str, Any]:
    """What a forward pass in evaluation mode may write to: buffers, and the states of metrics."""
    buffers = dict(module._buffers)
    copies = {name: b.clone() for name, b in buffers.items() if b is not None}
    own = (*module.metric_state, "_update_count", "_computed", "_forward_cache") if isinstance(module, Metric) else ()
    return {"buffers": buffers, "copies": copies, "metric": {name: module.__dict__[name] for name in own}}


def _restore_state(module: nn.Module, state: dict[str, Any]) -> None:
    module._buffers.clear()
    module._buffers.update(state["buffers"])
    module.__dict__.update(state["metric"])
    with torch.inference_mode():  # Else a buffer that was made in it could not be written to.
        for name, copied in state["copies"].items():
            # Always: not all kernels that write to a tensor count up its version.
            state["buffers"][name].copy_(copied)
