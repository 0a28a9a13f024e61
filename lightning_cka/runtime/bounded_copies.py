"""`BoundedCopies`: copies of tensors and arrays up to a total size, beyond which they are watched for writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cka.runtime.tensor_copies import Restore, keep_tensor

MAX_COPIED_BYTES = 128 * 2**20
"""Tensors and arrays beyond this total are not copied: see `BoundedCopies.changed`."""

_NUM_COMPARED = 2**16
"""Entries of a large array that are compared, evenly spaced."""


class BoundedCopies:
    """Copies of tensors and arrays.

    Attributes:
        restores: Functions that put the values back.
    """

    def __init__(self) -> None:
        self.restores: list[Restore] = []
        self._free_bytes = MAX_COPIED_BYTES
        self._large: list[tuple[str, Callable[[], bool]]] = []

    def changed(self) -> list[str]:
        """Return the names of what could not be copied, and was written to.

        Of arrays without a version, evenly spaced entries are compared.
        """
        return [name for name, has_changed in self._large if has_changed()]

    def keep_tensor(self, tensor: Tensor, name: str) -> bool:
        """Copy or watch a tensor. Return whether that is possible."""
        if tensor.is_meta:
            return True
        if hasattr(tensor, "to_local"):  # A tensor that is sharded over processes: comparing it would communicate.
            tensor = tensor.to_local()
        is_plain = tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_quantized
        if is_plain and tensor.nbytes <= self._free_bytes:
            try:
                self.restores.append(keep_tensor(tensor, compare=True))
                self._free_bytes -= tensor.nbytes
            except Exception:  # noqa: BLE001  # Any class of tensor may be an attribute.
                return False
        elif not tensor.is_inference():
            version = tensor._version
            self._large.append((name, lambda: tensor._version != version))
        elif is_plain:
            some = _evenly_spaced(tensor.detach().view(-1) if tensor.is_contiguous() else tensor.detach())
            copied = some.clone()
            self._large.append((name, lambda: not torch.equal(some, copied)))
        return True

    def keep_array(self, array: np.ndarray[Any, Any], name: str) -> None:
        """Copy or watch an array."""
        if array.dtype.hasobject or not array.flags.writeable:
            return
        is_small = array.nbytes <= self._free_bytes and not isinstance(array, np.memmap)
        watched = array if is_small else _evenly_spaced(array.reshape(-1) if array.flags.c_contiguous else array)
        copied = np.array(watched)
        if not is_small:
            self._large.append((name, lambda: watched.tobytes() != copied.tobytes()))
            return
        self._free_bytes -= array.nbytes

        def restore() -> None:
            if array.tobytes() != copied.tobytes():
                array[...] = copied

        self.restores.append(restore)


def _evenly_spaced(values: Any) -> Any:
    """Return at most about `_NUM_COMPARED` entries of a tensor or an array, as a view."""
    return values[:: max(1, len(values) // _NUM_COMPARED)] if values.ndim else values
