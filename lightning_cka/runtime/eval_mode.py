"""Put a model into evaluation mode for a while, and restore everything that a forward pass changes."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from lightning_cka.runtime.attributes import AttributeSnapshot
from lightning_cka.runtime.gradients import keep_gradients
from lightning_cka.runtime.metric_states import metric_state_names
from lightning_cka.runtime.nested import map_tensors
from lightning_cka.runtime.sharding import fsdp_modules, is_resharded, is_sharded, reshard
from lightning_cka.runtime.tensor_copies import Restore, keep_buffers, restore_all
from lightning_cka.runtime.written_parameters import ParameterSnapshot


class KeptState(NamedTuple):
    """What is kept of a model while it is in evaluation mode."""

    attributes: AttributeSnapshot
    parameters: ParameterSnapshot


@contextmanager
def temporary_eval_mode(
    model: nn.Module, *, parameters: Collection[str] | None = (), callers: Collection[object] = ()
) -> Iterator[KeptState]:
    """Run a block in evaluation mode, without gradients, compiled graphs and fused transformer layers.

    At the end, also after an error, everything is restored: training flags, buffers, attributes, states of metrics,
    gradients, gathered shards, grad mode, inference mode, compile stance and fast path.

    Args:
        model: The model.
        parameters: Names of the parameters that its forward pass writes to, which are restored too. None: not known,
            so that all parameters are copied, as far as memory allows.
        callers: Functions that call the model: the user's ``forward_fn``.

    Yields:
        What is kept of attributes and parameters. It lists what cannot be restored.
    """
    modules = list(model.modules())
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
        # Gathering shards replaces parameters.
        kept = AttributeSnapshot(modules, parameters=not is_sharded(model), callers=callers)
        restores: list[Restore] = [kept.restore]
        stack.callback(restore_all, restores)
        for module in modules:
            left_alone = _keep_states(module, restores)
            kept.left_alone += [f"buffer {type(module).__name__}.{name}" for name in left_alone]
        # Of sharded weights, forward writes to gathered copies.
        watched = [] if is_sharded(model) else [*model.named_parameters(), *kept.hidden_parameters]
        restores.append(keep_gradients(parameter for _, parameter in watched))
        weights = ParameterSnapshot(watched, parameters)
        restores.append(weights.restore)
        for module in modules:
            if hasattr(module, "training"):
                restores.append(partial(_set_mode, module, training=module.training))
                if not _set_mode(module, training=False):
                    kept.left_alone.append(f"the training mode of {type(module).__name__}")
        yield KeptState(kept, weights)


def _keep_states(module: nn.Module, restores: list[Restore]) -> list[str]:
    """Add what restores buffers and the states of a metric. Return the buffers that cannot be copied."""
    of_buffers, left_alone = keep_buffers(module)
    restores += of_buffers
    # The block updates clones of a metric's states: its own ones may belong to a graph that is still needed.
    states = {name: module.__dict__[name] for name in metric_state_names(module)}
    restores.append(partial(module.__dict__.update, states))
    module.__dict__.update(map_tensors(states, torch.clone))
    return left_alone


def _set_mode(module: nn.Module, *, training: bool) -> bool:
    """Set the mode of a module, if possible without its submodules, and return whether it has this mode now."""
    for set_mode in (lambda: setattr(module, "training", training), lambda: module.train(training)):
        try:
            set_mode()
        except Exception:  # noqa: BLE001  # A module may define both as it likes.
            continue
        if module.training == training:
            return True
    return False
