"""Move a model to another device or precision for a while, and put its own tensors back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from lightning_cka.runtime.tensor_copies import put_back_buffers


@contextmanager
def kept_placement(model: nn.Module) -> Iterator[None]:
    """Restore the memory of a model's parameters and gradients, and its buffers, at the end.

    Moving a model back would lose digits after a conversion, and place a model on one device that was on several.
    """
    memory = _memory(model)
    parameters = [(m._parameters, dict(m._parameters)) for m in model.modules() if isinstance(m._parameters, dict)]
    buffers = [(module, dict(module._buffers.items())) for module in model.modules()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for table, values in parameters:
            table.clear()
            table.update(values)
        for module, tensors_of_module in buffers:
            put_back_buffers(module, tensors_of_module)
        with torch.inference_mode(False), torch.no_grad():
            for tensor, data in memory:
                tensor.data = data
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _memory(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Return parameters and gradients, each with an alias of its memory."""
    tensors = [tensor for parameter in model.parameters() for tensor in (parameter, parameter.grad)]
    with torch.inference_mode(False), torch.no_grad():
        return [(tensor, tensor.data) for tensor in tensors if tensor is not None and not tensor.is_inference()]


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Move the model to ``device``, and put its own tensors back at the end."""
    if device_of(model) == device:
        yield
        return
    with kept_placement(model):
        model.to(device)
        yield


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer; the CPU if it has none."""
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device
