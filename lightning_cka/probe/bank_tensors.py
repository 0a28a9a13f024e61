"""The tensors of one batch in a bank's file, and the checks that they pass before a number is used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, BinaryIO

import torch
from torch import Tensor

from lightning_cka.hsic.folding import fold_triangles, lower_triangles
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.runtime.tensor_layout import TensorKind, tensor_bytes

_UNIT = "halves_unit"
_DTYPES = (torch.float32, torch.float64)

NO_CHECKSUM = "0" * 32
"""Has the length of a checksum."""

_ENTRIES_AT_A_TIME = 2**19
"""Entries of Gram matrices that are written at the same time, unless a single layer has more."""


def tensor_kinds(grams: PackedGrams, *, float16: bool) -> dict[str, TensorKind]:
    """Return what a file has for a batch: dtypes and shapes by name.

    Args:
        grams: The Gram matrices of the batch.
        float16: Whether to store them in half precision.
    """
    shapes = _shapes(*grams.offsets.shape)
    if not float16:
        del shapes[_UNIT]
    kinds = {name: TensorKind(grams.offsets.dtype, shape) for name, shape in shapes.items()}
    return kinds | ({"halves": TensorKind(torch.float16, shapes["halves"])} if float16 else {})


def write_grams(file: BinaryIO, starts: Mapping[str, int], grams: PackedGrams, *, float16: bool) -> str:
    """Write the tensors of one batch, some layers at a time, and return their checksum.

    Args:
        file: The open file.
        starts: Where each tensor starts in the file, by name.
        grams: The Gram matrices of the batch.
        float16: Whether to store them in half precision.

    Raises:
        OSError: The file cannot be written.
    """
    kinds, digest = tensor_kinds(grams, float16=float16), _new_digest()
    for name, parts in groupby(_stored_parts(grams, float16=float16), lambda part: part[0]):
        file.seek(starts[name])
        digest.update(_label(name, kinds[name]))
        for _, part in parts:
            content = tensor_bytes(part)
            digest.update(content)
            file.write(content)
    return digest.hexdigest()


def tensor_checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of tensors: of their names, dtypes, shapes and bytes."""
    digest = _new_digest()
    for name in sorted(tensors):
        digest.update(_label(name, TensorKind(tensors[name].dtype, tuple(tensors[name].shape))))
        digest.update(tensor_bytes(tensors[name]))
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
    unit = tensors.pop(_UNIT, None)
    return PackedGrams(**(tensors | {"halves": _folded(tensors["halves"], unit, n)}))


def rounded_to_half(grams: PackedGrams) -> PackedGrams:
    """Return the Gram matrices that are read from a file in half precision."""
    n = grams.num_samples
    halves = torch.cat([_folded(*_to_half(triangles), n) for triangles in _triangles(grams)])
    return grams._replace(halves=halves)


def _stored_parts(grams: PackedGrams, *, float16: bool) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of one batch in the order of their names. Parts of one tensor follow each other."""
    units = []
    for halves in _triangles(grams):
        if float16:
            halves, unit = _to_half(halves)  # Frees the entries in full precision.
            units.append(unit)
        yield "halves", halves
    if float16:
        yield _UNIT, torch.cat(units)
    for name in ("offsets", "row_squares", "scales"):
        yield name, getattr(grams, name)


def _triangles(grams: PackedGrams) -> Iterator[Tensor]:
    """Yield the strictly lower triangles ``(l, n(n-1)/2)`` of some layers at a time."""
    size = max(1, _ENTRIES_AT_A_TIME // grams.halves.shape[1])
    for first in range(0, len(grams.halves), size):
        yield lower_triangles(grams.halves[first : first + size], grams.num_samples)


def _new_digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _label(name: str, kind: TensorKind) -> bytes:
    return repr((name, str(kind.dtype), kind.shape)).encode()


def _folded(triangles: Tensor, unit: Tensor | None, n: int) -> Tensor:
    """Return the folded matrices of triangles as a file has them; ``unit`` None: in full precision."""
    if unit is None:
        return fold_triangles(triangles, n)
    return fold_triangles(triangles, n, unit.dtype).mul_(unit[:, None])


def _shapes(num_layers: int, n: int) -> dict[str, tuple[int, ...]]:
    return {
        "halves": (num_layers, n * (n - 1) // 2),
        "offsets": (num_layers, n),
        "row_squares": (num_layers, n),
        "scales": (num_layers,),
        _UNIT: (num_layers,),
    }


def _check_shapes(tensors: Mapping[str, Tensor], num_layers: int, n: int) -> None:
    shapes = _shapes(num_layers, n)
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
    """Convert vectors ``(L, p)``, which are changed, to half precision, relative to powers of 2 ``(L,)``."""
    largest = halves.nan_to_num(0.0).abs_().amax(1)
    # The largest entry is scaled to [2^14, 2^15), so that small entries have the whole range of float16 below it.
    unit = torch.where(largest > 0, torch.exp2(largest.log2().floor() - 14), torch.ones_like(largest))
    return halves.div_(unit[:, None]).half(), unit
