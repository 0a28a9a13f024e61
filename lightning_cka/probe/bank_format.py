"""The file format of Gram banks."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from lightning_cka.hsic.folding import half_size, triangle_indices
from lightning_cka.hsic.packed import PackedGrams

FORMAT_VERSION = 1
"""Of bank files; see `GramBank.save`."""


HEADER = "lightning_cka"


def read_header(name: str, metadata: dict[str, str] | None) -> dict[str, Any]:
    if not metadata or HEADER not in metadata:
        raise ValueError(f"{name!r} is no bank of lightning_cka, but another safetensors file")
    header: dict[str, Any] = json.loads(metadata[HEADER])
    if header["format_version"] > FORMAT_VERSION:
        version = header.get("package_version", "unknown")
        raise ValueError(
            f"{name!r} has format version {header['format_version']}, of lightning_cka {version}; "
            f"this one reads versions up to {FORMAT_VERSION}: install a newer lightning_cka"
        )
    return header


def read_grams(file: Any, index: int) -> PackedGrams:
    parts = {name: file.get_tensor(f"{index}.{name}") for name in PackedGrams._fields}
    if parts["halves"].dtype == torch.float16:
        unit = file.get_tensor(f"{index}.halves_unit")
        parts["halves"] = parts["halves"].to(unit.dtype) * unit[:, None]
    n = parts["offsets"].shape[1]
    folded = parts["halves"].new_zeros(len(parts["halves"]), n * half_size(n))
    parts["halves"] = folded.index_copy_(1, triangle_indices(n), parts["halves"])
    return PackedGrams(**parts)


def to_half(halves: Tensor) -> tuple[Tensor, Tensor]:
    """Half vectors ``(L, p)`` in half precision, and the powers of 2 ``(L,)`` that they are in units of."""
    largest = halves.abs().amax(1)
    # The largest entry comes to lie in [2^14, 2^15), which leaves the small ones the whole range of float16.
    unit = torch.where(largest > 0, torch.exp2(largest.log2().floor() - 14), torch.ones_like(largest))
    return (halves / unit[:, None]).half(), unit
