"""The tensors of one batch in a bank's file, and the checks that they pass before a number is used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_cka.hsic.folding import fold_triangles, triangle_indices
from lightning_cka.hsic.packed import PackedGrams

_UNIT = "halves_unit"
_DTYPES = (torch.float32, torch.float64)


def stored_tensors(grams: PackedGrams, *, float16: bool) -> dict[str, Tensor]:
    """Return the tensors that a file has for a batch, by name.

    Args:
        grams: The Gram matrices of the batch.
        float16: Whether to store them in half precision.
    """
    parts = dict(grams._asdict())
    parts["halves"] = parts["halves"].index_select(1, triangle_indices(grams.num_samples))
    if float16:
        parts["halves"], parts[_UNIT] = _to_half(parts["halves"])
    return {name: part.contiguous() for name, part in parts.items()}


def tensor_checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of tensors: of their names, dtypes, shapes and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def read_grams(file: Any, index: int, num_layers: int, n: int, checksum: str | None) -> PackedGrams:
    """Return the Gram matrices of one batch.

    Args:
        file: The open safetensors file.
        index: Index of the batch.
        num_layers: Number of layers L that the header has.
        n: Number of samples that the header has.
        checksum: Checksum of the tensors. None: the file has none.

    Raises:
        ValueError: A tensor has another dtype, shape or checksum than it must have, or impossible values.
    """
    tensors = {name: file.get_tensor(f"{index}.{name}") for name in PackedGrams._fields}
    if tensors["halves"].dtype == torch.float16:
        tensors[_UNIT] = file.get_tensor(f"{index}.{_UNIT}")
    try:
        _check_shapes(tensors, num_layers, n)
        if checksum is not None and tensor_checksum(tensors) != checksum:
            raise ValueError("the checksum of its tensors differs")
        _check_values(tensors)
    except ValueError as error:
        raise ValueError(f"is damaged: batch {index}: {error}") from error
    halves = tensors["halves"]
    if _UNIT in tensors:
        halves = _from_half(halves, tensors.pop(_UNIT))
    return PackedGrams(**(tensors | {"halves": fold_triangles(halves, n)}))


def rounded_to_half(grams: PackedGrams) -> PackedGrams:
    """Return the Gram matrices that are read from a file in half precision."""
    n = grams.num_samples
    halves = _from_half(*_to_half(grams.halves.index_select(1, triangle_indices(n))))
    return grams._replace(halves=fold_triangles(halves, n))


def _from_half(halves: Tensor, unit: Tensor) -> Tensor:
    return halves.to(unit.dtype).mul_(unit[:, None])


def _check_shapes(tensors: Mapping[str, Tensor], num_layers: int, n: int) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "halves": (num_layers, n * (n - 1) // 2),
        "offsets": (num_layers, n),
        "row_squares": (num_layers, n),
        "scales": (num_layers,),
        _UNIT: (num_layers,),
    }
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES and not (name == "halves" and tensor.dtype == torch.float16):
            raise ValueError(f"{name} has dtype {tensor.dtype}; expected float32 or float64")
        if tuple(tensor.shape) != shapes[name]:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected {shapes[name]}")
    if len({tensor.dtype for tensor in tensors.values()} & {*_DTYPES}) > 1:
        raise ValueError("some tensors are float32, others float64")


def _check_values(tensors: Mapping[str, Tensor]) -> None:
    scales = tensors["scales"]
    undefined = scales.isnan()
    # A layer without features is nan throughout. A layer without variance has the scale 0.
    if not tensors["offsets"][undefined].isnan().all():
        raise ValueError("a scale is nan, but its layer is not")
    if not _is_power_of_two(scales[~undefined & (scales != 0)]):
        raise ValueError("a scale is not a power of 2")
    if (tensors["row_squares"] < 0).any():
        raise ValueError("a squared norm is negative")
    if _UNIT in tensors and not _is_power_of_two(tensors[_UNIT][tensors[_UNIT] != torch.inf]):
        raise ValueError("a unit is not a power of 2")


def _is_power_of_two(values: Tensor) -> bool:
    return bool((values.isfinite() & (values > 0) & (values.frexp().mantissa == 0.5)).all())


def _to_half(halves: Tensor) -> tuple[Tensor, Tensor]:
    """Convert vectors ``(L, p)`` to half precision, relative to powers of 2 ``(L,)``."""
    largest = halves.nan_to_num(0.0).abs().amax(1)
    # The largest entry is scaled to [2^14, 2^15), so that small entries have the whole range of float16 below it.
    unit = torch.where(largest > 0, torch.exp2(largest.log2().floor() - 14), torch.ones_like(largest))
    return (halves / unit[:, None]).half(), unit
