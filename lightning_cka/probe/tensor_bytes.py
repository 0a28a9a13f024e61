"""Some bytes of a tensor of any kind, to be hashed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

_MAX_STRIDE_ENTRIES = 4096

_SPARSE_PARTS: dict[torch.layout, tuple[str, ...]] = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


def plain_parts(tensor: Tensor) -> list[Tensor]:
    """Return dense tensors that hold the entries of a tensor: a nested, sparse or quantized one has several.

    The behaviour of tensor subclasses is switched off: their slices and shapes may mean something.
    """
    with torch._C.DisableTorchFunctionSubclass():
        return _parts(tensor)


def some_bytes(tensor: Tensor, start: int = 0, whole: int | None = None) -> Tensor:
    """Return at least 4096 entries of a dense tensor, evenly spaced, as bytes; all, if there are fewer.

    A tensor whose entries cannot be read (one without memory, or of a foreign kind) gives a text about it, as bytes.

    Args:
        tensor: The tensor, or a part of one along its first dimension.
        start: Where the part begins in the whole tensor.
        whole: Length of the whole tensor. The parts' bytes together are those of the whole. None: that of ``tensor``.
    """
    with torch._C.DisableTorchFunctionSubclass():
        for read in (partial(_strided_bytes, start=start, whole=whole), _bytes_of_array):
            try:
                return read(tensor)
            except Exception:  # noqa: BLE001  # The next way is tried: a hash must never be an error.
                continue
        return _bytes(repr((type(tensor).__name__, tensor.layout, tensor.device.type)).encode())


def _parts(tensor: Tensor) -> list[Tensor]:
    if tensor.is_nested:
        return [part for each in tensor.unbind() for part in _parts(each)]
    if tensor.layout in _SPARSE_PARTS:
        return [getattr(tensor, name)() for name in _SPARSE_PARTS[tensor.layout]]
    for read in (_unwrapped, _dequantized, _without_subclass):
        try:
            if parts := read(tensor):
                return parts
        except Exception:  # noqa: BLE001  # The tensor itself is hashed, as far as it can be read.
            continue
    return [tensor]


def _unwrapped(tensor: Tensor) -> list[Tensor]:
    """Return the tensors that a wrapper subclass holds; nothing for other tensors."""
    flatten: Callable[[], tuple[list[str], object]] | None = getattr(tensor, "__tensor_flatten__", None)
    return [] if flatten is None else [part for name in flatten()[0] for part in _parts(getattr(tensor, name))]


def _dequantized(tensor: Tensor) -> list[Tensor]:
    """Return the values of a quantized or an MKL-DNN tensor; nothing for other tensors."""
    if tensor.is_quantized:
        return [tensor.int_repr(), tensor.dequantize()]
    return [tensor.to_dense()] if tensor.is_mkldnn else []


def _without_subclass(tensor: Tensor) -> list[Tensor]:
    return [Tensor.as_subclass(tensor, Tensor)]


def _strided_bytes(tensor: Tensor, start: int, whole: int | None) -> Tensor:
    if tensor.is_meta:
        raise ValueError("a tensor on the meta device has no values")
    flat = tensor.detach().resolve_conj().resolve_neg().reshape(-1)
    row = tensor[0].numel() if whole is not None else 0
    stride = max(1, (len(flat) if whole is None else whole * row) // _MAX_STRIDE_ENTRIES)
    return flat[-start * row % stride :: stride].contiguous().view(torch.uint8)


def _bytes_of_array(tensor: Tensor) -> Tensor:
    return _bytes(tensor.detach().cpu().numpy().tobytes())


def _bytes(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text or b"\0"), dtype=torch.uint8)
