"""Copy tensors and buffers, and put values, memory and identity back afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

Restore = Callable[[], object]

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def restore_all(restores: Iterable[Restore]) -> None:
    """Call functions in reverse order. An error does not keep the rest from being called, and is raised at the end."""
    left = list(restores)
    try:
        while left:
            left.pop()()
    finally:
        # Thousands of callbacks would make Python collect garbage, which takes longer than they do.
        with ExitStack() as stack:
            for restore in left:
                stack.callback(restore)


def keep_tensor(tensor: Tensor, *, compare: bool) -> Restore:
    """Copy a tensor, and return a function that restores its values, shape, memory and version in place.

    With the version, gradients can still be computed through a graph that was made before.

    Args:
        tensor: The tensor.
        compare: Whether to write only if a value differs.

    Raises:
        Exception: The tensor cannot be copied. What is raised depends on its class and layout.
    """
    copied = tensor.detach().clone()
    memory = _memory(tensor)
    version = None if tensor.is_inference() else _unsafe_preserve_version_counter(tensor)

    def restore() -> None:
        if memory is not None and not _shares(tensor, memory):
            tensor.data = memory  # It was resized, or got other memory, which may belong to another tensor.
        # Values are compared: some kernels (batch norm's) write without increasing a tensor's version.
        if not (compare and _have_same_bits(tensor, copied)):
            with torch.inference_mode():  # Else a tensor that was made in it could not be written to.
                _copy(copied, tensor)
        if version is not None:
            version.__exit__(None, None, None)

    return restore


def keep_buffers(module: nn.Module) -> tuple[list[Restore], list[str]]:
    """Copy the buffers of a module, without those of its submodules.

    Returns:
        Functions to call in reverse order, which restore the buffers; and the names of buffers that cannot be copied.
    """
    buffers = dict(module._buffers.items())
    restores: list[Restore] = []
    left_alone = []
    for name, buffer in buffers.items():
        try:
            if buffer is not None:
                restores.append(keep_tensor(buffer, compare=False))
        except Exception:  # noqa: BLE001  # Any class of tensor may be a buffer.
            left_alone.append(name)
    restores.append(lambda: put_back_buffers(module, buffers))
    return restores, left_alone


def put_back_buffers(module: nn.Module, buffers: dict[str, Tensor | None]) -> None:
    """Let a module have these buffers, and no others."""
    if isinstance(module, torch.jit.ScriptModule):  # It has a fixed set of buffers, in C++.
        for name, buffer in buffers.items():
            if module._buffers[name] is not buffer:
                setattr(module, name, buffer)
    else:
        module._buffers.clear()
        module._buffers.update(buffers)


def _memory(tensor: Tensor) -> Tensor | None:
    """Return an alias of the tensor's memory; None if the tensor has none of its own, or if it cannot be set."""
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_inference():
        return None
    try:
        tensor.data_ptr()
    except RuntimeError:
        return None
    return tensor.detach()


def _shares(tensor: Tensor, memory: Tensor) -> bool:
    mine, kept = ((each.data_ptr(), each.shape, each.stride(), each.dtype) for each in (tensor, memory))
    return mine == kept


def bits(tensor: Tensor) -> Tensor:
    """Return a view of a tensor as integers: of 64 bits where its memory allows it, which take the least time."""
    with torch._C.DisableTorchFunctionSubclass():
        plain = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        per_integer = 8 // plain.element_size()
        fits = plain.numel() % per_integer == 0 and plain.storage_offset() % per_integer == 0
        if plain.is_contiguous() and fits:
            return plain.view(-1).view(torch.int64)
        return plain.view(_INTEGERS[plain.element_size()])


def _have_same_bits(one: Tensor, other: Tensor) -> bool:
    # As bits, nan equals nan, and 0.0 differs from -0.0.
    plain = [t.detach().resolve_conj().resolve_neg().reshape(-1).contiguous() for t in (one, other)]
    first, second = map(bits, plain)
    if first.dtype != second.dtype:  # The memory of one is not aligned.
        first, second = (t.view(torch.uint8) for t in plain)
    return torch.equal(first, second)


def _copy(source: Tensor, target: Tensor) -> None:
    """Write values to a tensor. Of entries that `expand` has repeated, one is written to: torch refuses all."""
    is_strided = target.layout is torch.strided and not target.is_nested
    for dim, size in enumerate(target.shape if is_strided else ()):
        if size > 1 and target.stride(dim) == 0:
            source, target = source.narrow(dim, 0, 1), target.narrow(dim, 0, 1)
    target.copy_(source)
