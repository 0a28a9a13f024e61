"""Multiply in the operands' own precision, and add up in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch


def full_precision(device_type: str) -> AbstractContextManager[None]:
    """Multiply in the operands' own precision: no autocast, no TF32, no bfloat16 passes."""
    if not torch.is_autocast_enabled(device_type) and not _reduced_precision():
        return nullcontext()  # Asked for in each layer: the switches below cost as much as a small product.
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
                    reduced[backend] = "none"  # It was inherited from a more general switch, and shall be again.
                backend.fp32_precision = "ieee"
            yield
        finally:
            for backend, value in reduced.items():
                backend.fp32_precision = value


def _reduced_precision() -> dict[Any, str]:
    """Whether products are made in less than their operands' precision: where, and in which."""
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch before 2.9 has one switch.
        precision = torch.get_float32_matmul_precision()
        return {} if precision == "highest" else {"float32_matmul_precision": precision}
    # The legacy getter raises once a user has used these newer switches, so read the switches.
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, cast(Any, torch.backends.mkldnn).matmul)
    return {backend: value for backend in backends if (value := backend.fp32_precision) not in ("none", "ieee")}


def accumulator_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on the one device type that lacks it."""
    return torch.float32 if device.type == "mps" else torch.float64
