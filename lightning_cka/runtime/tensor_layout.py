"""`TensorLayout`: where tensors lie in a safetensors file, so that it can be written one tensor at a time.

The file is the length of a JSON text (8 bytes), the text, and the tensors' bytes. The text has the dtype, the shape and
the place of each tensor, and the metadata. Files have the same bytes as those of the library safetensors, which needs
all tensors in memory twice. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

_NAMES = {torch.float16: "F16", torch.float32: "F32", torch.float64: "F64"}


class TensorKind(NamedTuple):
    """What a tensor takes in a file."""

    dtype: torch.dtype
    """Float16, float32 or float64."""
    shape: tuple[int, ...]
    """The shape."""

    @property
    def num_bytes(self) -> int:
        """Return the size in bytes."""
        return self.dtype.itemsize * torch.Size(self.shape).numel()


class TensorLayout:
    """Where tensors lie in a safetensors file. Wider dtypes come first, so that each tensor is aligned.

    Args:
        tensors: Dtypes and shapes by name.

    Attributes:
        starts: By name, where a tensor starts, in bytes from the end of the header.
    """

    def __init__(self, tensors: Mapping[str, TensorKind]) -> None:
        self._tensors = tensors
        self.starts: dict[str, int] = {}
        end = 0
        for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):
            self.starts[name] = end
            end += tensors[name].num_bytes

    def header(self, metadata: Mapping[str, str]) -> bytes:
        """Return what a file with this metadata has before its tensors."""
        fields: dict[str, object] = {"__metadata__": dict(metadata)}
        for name, start in self.starts.items():
            kind = self._tensors[name]
            offsets = [start, start + kind.num_bytes]
            fields[name] = {"dtype": _NAMES[kind.dtype], "shape": kind.shape, "data_offsets": offsets}
        text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor in host memory as a file has them. They are a copy only if they must be."""
    array = tensor.contiguous().numpy()
    return (array if sys.byteorder == "little" else array.byteswap()).data
