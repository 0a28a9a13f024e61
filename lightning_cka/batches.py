"""What a batch holds, whatever it is made of."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cka.layers import dataclass_values


def map_tensors(data: Any, fn: Callable[[Tensor], Any]) -> Any:
    """Apply ``fn`` to the tensors of a batch, in mappings, sequences and dataclasses of any depth."""
    if isinstance(data, Tensor):
        return fn(data)
    if isinstance(data, Mapping):
        return {key: map_tensors(value, fn) for key, value in data.items()}
    if isinstance(data, list | tuple):
        values = [map_tensors(value, fn) for value in data]
        return type(data)(*values) if hasattr(data, "_fields") else type(data)(values)
    if found := dataclass_values(data):
        data = copy.copy(data)
        for name, value in found.items():
            object.__setattr__(data, name, map_tensors(value, fn))  # Frozen ones, too.
    return data


def tensors_in(data: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Tensors and arrays of a batch: in mappings, sequences, and the attributes of other objects."""
    seen = set() if seen is None else seen
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, np.ndarray) and data.dtype.kind in "biuf":
        yield torch.from_numpy(data)
    elif id(data) not in seen and not isinstance(data, str | bytes | type):
        seen.add(id(data))
        if isinstance(data, Mapping):
            parts: Iterable[Any] = data.values()
        elif isinstance(data, list | tuple):
            parts = data
        else:
            parts = (getattr(data, "__dict__", {}) | dataclass_values(data)).values()
        for part in parts:
            yield from tensors_in(part, seen)


def token_mask(batch: Any, num_samples: int) -> Tensor | None:
    """``(n, T)``: which tokens are no padding, by the ``attention_mask`` of a mapping, or of a first element.

    Raises:
        ValueError: the mask is one to be added to attention scores, where 0 stands for a token.
    """
    if isinstance(batch, list | tuple) and batch:
        batch = batch[0]
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor) or mask.ndim != 2 or len(mask) != num_samples:
        return None
    if mask.is_floating_point() and (mask < 0).any():
        raise ValueError(
            "the batch's attention_mask has negative values, as one that is added to attention scores, but "
            "feature_fn='mean' takes 1 for a token and 0 for padding: give it such a mask, or pass a feature_fn= of "
            "your own"
        )
    return mask != 0


def fingerprint(data: Any) -> str:
    """Hash of a batch's shapes and of some thousands of its values, to see that it is the same again."""
    digest = hashlib.blake2b(digest_size=16)
    parts = [part for found in tensors_in(data) for part in (found.unbind() if found.is_nested else [found])]
    for tensor, some in zip(parts, _on_host([_some_bytes(tensor) for tensor in parts]), strict=True):
        digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(some.numpy().tobytes())
    return digest.hexdigest()


def _some_bytes(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, len(flat) // 4096)].contiguous().view(torch.uint8)


def _on_host(parts: list[Tensor]) -> tuple[Tensor, ...]:
    """The same vectors in host memory. An accelerator is waited for once, and not for each of them."""
    if len({part.device for part in parts}) != 1 or parts[0].device.type == "cpu":
        return tuple(part.cpu() for part in parts)
    return torch.split(torch.cat(parts).cpu(), [len(part) for part in parts])
