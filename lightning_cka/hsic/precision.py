"""Products in the operands' own precision, and the dtype that accumulates them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch


def full_precision(device_type: str) -> AbstractContextManager[None]:
    """Return a context that disables autocast, TF32 and bfloat16 passes for matrix products.

    Args:
        device_type: Type of the operands' device, such as "cuda".
    """
    if not torch.is_autocast_enabled(device_type) and not _reduced_precision():
        # This runs once per layer, and changing the switches takes as long as a small product.
        return nullcontext()
    return _full_precision(device_type)


@contextmanager
def _full_precision(device_type: str) -> Iterator[None]:
    with torch.autocast(device_type, enabled=False):
        if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch before 2.9
            precision = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(precision)
            return
        reduced = _reduced_precision()
        try:
            for backend, value in reduced.items():
                backend.fp32_precision = "none"
                if backend.fp32_precision == value:
                    # The value is inherited from a more general switch, so "none" restores it.
                    reduced[backend] = "none"
                backend.fp32_precision = "ieee"
            yield
        finally:
            for backend, value in reduced.items():
                backend.fp32_precision = value


def _reduced_precision() -> dict[Any, str]:
    """Return the switches that reduce the precision of float32 products, with their current values."""
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch before 2.9 has a single switch.
        precision = torch.get_float32_matmul_precision()
        return {} if precision == "highest" else {"float32_matmul_precision": precision}
    # The older getter raises once a user has set these newer switches, so read the switches.
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, cast(Any, torch.backends.mkldnn).matmul)
    return {backend: value for backend in backends if (value := backend.fp32_precision) not in ("none", "ieee")}


def accumulator_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of sums on a device: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
