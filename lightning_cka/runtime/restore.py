"""Put a model into evaluation mode for a while, and restore everything that a forward pass changes."""

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
def temporary_eval_mode(model: nn.Module) -> Iterator[None]:
    """Run a block in evaluation mode, without gradients, compiled graphs and fused transformer layers.

    At the end, also after an error, everything is restored: training flags, buffers, states of metrics, gathered
    shards, grad mode, inference mode, compile stance and fast path.
    """
    modes = [(module, module.training) for module in model.modules()]
    with ExitStack() as stack:
        # A tensor that is made in inference mode could not be updated in place later.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # Otherwise nothing is compiled, and importing it takes seconds.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        # The fast path of transformer layers skips their children's hooks, and training does not use it.
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(reshard, [module for module in fsdp_modules(model) if is_resharded(module)])
        for module, _ in modes:
            state = _saved_state(module)
            stack.callback(_restore_state, module, state)
            # The block updates clones of a metric's states: its own ones may belong to a graph that is still needed.
            module.__dict__.update(map_tensors(state["metric"], torch.clone))
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, training in modes:
                module.training = training


def _saved_state(module: nn.Module) -> dict[str, Any]:
    """Return what a forward pass in evaluation mode may change: buffers, and the states of metrics."""
    buffers = dict(module._buffers)
    copies = {name: b.clone() for name, b in buffers.items() if b is not None}
    own = (*module.metric_state, "_update_count", "_computed", "_forward_cache") if isinstance(module, Metric) else ()
    return {"buffers": buffers, "copies": copies, "metric": {name: module.__dict__[name] for name in own}}


def _restore_state(module: nn.Module, state: dict[str, Any]) -> None:
    module._buffers.clear()
    module._buffers.update(state["buffers"])
    module.__dict__.update(state["metric"])
    with torch.inference_mode():  # Buffers that were made in inference mode can be written to only inside it.
        for name, copied in state["copies"].items():
            # Copy every buffer: a tensor's version does not tell, since some kernels write without increasing it.
            state["buffers"][name].copy_(copied)
