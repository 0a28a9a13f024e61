"""Read NumPy arrays as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = Tensor | NDArray[Any]
"""What the functions of this package accept as features."""


def to_tensor(value: Any) -> Tensor:
    """Return a tensor as it is, and a NumPy array of numbers as a tensor.

    Raises:
        TypeError: The value is neither, or has a dtype that torch does not have.
    """
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, np.ndarray):
        raise TypeError(f"features must be a tensor or a NumPy array, but are a {type(value).__name__}")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("features are a masked NumPy array: fill or leave out what is masked")
    if value.dtype.kind not in "biufc" or value.dtype.itemsize > (16 if value.dtype.kind == "c" else 8):
        raise TypeError(f"features are a NumPy array of dtype {value.dtype}, which torch does not have")
    # torch reads arrays in native byte order, without negative strides; and warns of read-only ones.
    native = np.asarray(value, dtype=value.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(native if native.flags.writeable else native.copy())
