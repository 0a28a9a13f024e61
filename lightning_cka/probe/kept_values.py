"""Keep some entries of a layer's output: enough to tell the rows of samples apart, in little memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

import torch
from torch import Tensor

_MAX_ENTRIES = 2**16
_MIN_COLUMNS = 8


def strides_of(shape: Sequence[int], num_samples: int) -> tuple[int, ...]:
    """Return the step in each dimension at which entries are kept.

    All entries are kept along the first dimension and along those with one entry per sample: one of these is the batch.

    Args:
        shape: Shape of the output.
        num_samples: Number of samples n.
    """
    rows = {dim for dim, size in enumerate(shape) if dim == 0 or size == num_samples}
    columns = max(_MIN_COLUMNS, _MAX_ENTRIES // max(1, prod(shape[dim] for dim in rows)))
    strides = [1] * len(shape)
    others = [dim for dim in range(len(shape)) if dim not in rows]
    while prod(ceil(shape[dim] / strides[dim]) for dim in others) > columns:
        strides[max(others, key=lambda dim: shape[dim] / strides[dim])] *= 2
    return tuple(strides)


def kept_values(tensor: Tensor, strides: Sequence[int]) -> Tensor | None:
    """Return a copy of some entries on the CPU in float32; None if the tensor has another number of dimensions.

    Args:
        tensor: A layer's output.
        strides: See `strides_of`.
    """
    if tensor.ndim != len(strides):
        return None
    # Subclasses may give slices a meaning of their own.
    with torch._C.DisableTorchFunctionSubclass():
        part = tensor.detach()[tuple(slice(None, None, stride) for stride in strides)]
        return part.to("cpu", torch.float32, copy=True)
