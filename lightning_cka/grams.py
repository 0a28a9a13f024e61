"""Gram matrices of centered features: made without losing digits, and centered again.

Notation: ``n`` samples, ``d`` features, ``K = X X^T`` the linear Gram matrix of centered features. Source of
U-centering: Székely & Rizzo 2014 (https://arxiv.org/abs/1310.2926).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

# A chunk of centered features should stay in a CPU core's cache; an accelerator wants larger products.
_CHUNK_BYTES_CPU = 2 * 2**20

_CHUNK_BYTES_ACCELERATOR = 64 * 2**20

# Above the diagonal the product would be computed twice; smaller blocks than this are slower than that.
_ROWS_CPU = 64


class Workspace:
    """Memory that is used again from batch to batch: fresh pages cost more than small products."""

    def __init__(self) -> None:
        self._memory: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def matrix(self, name: str, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A ``(rows, columns)`` matrix of any content, in the memory of that name."""
        key = (name, dtype, device)
        if key not in self._memory or len(self._memory[key]) < rows * columns:
            self._memory[key] = torch.empty(rows * columns, dtype=dtype, device=device)
        return self._memory[key][: rows * columns].view(rows, columns)


def lower_gram(features: Tensor, workspace: Workspace) -> tuple[Tensor, Tensor]:
    """The lower triangle of the Gram matrix of (features - location) / scale, and the scale.

    HSIC does not depend on the location, but its digits do. A mean would be dragged along by a far outlier, and
    leave all other samples at its distance over n from the origin; a median of the means of some groups of
    samples stays where most samples are.

    Returns:
        An ``(n, n)`` matrix of which the strictly upper triangle means nothing, made in the workspace and
        overwritten by the next call with that; and a scalar, a power of 2 near the features' size, or 0 where
        the features are constant but for rounding.
    """
    check_floating(features)
    if features.ndim == 0:
        raise ValueError("features must have shape (n, ...), but came as a scalar")
    # The Gram matrix does not depend on the order of the features: the order in memory needs no copy.
    by_stride = sorted(range(1, features.ndim), key=features.stride, reverse=True)
    flat = features.detach().permute(0, *by_stride).reshape(features.shape[0], -1)
    dtype = torch.float64 if flat.dtype == torch.float64 else torch.float32
    n, d = flat.shape
    budget = _CHUNK_BYTES_CPU if flat.device.type == "cpu" else _CHUNK_BYTES_ACCELERATOR
    width = max(1, min(d, budget // max(1, n * dtype.itemsize)))
    rows = _ROWS_CPU if flat.device.type == "cpu" and n >= 4 * _ROWS_CPU else max(1, n)
    gram = workspace.matrix("gram", n, n, dtype, flat.device).zero_()
    mean_square = torch.zeros((), dtype=dtype, device=flat.device)
    scale = torch.ones((), dtype=dtype, device=flat.device)
    with full_precision(flat.device.type):
        for start in range(0, d, width):
            chunk = flat[:, start : start + width]
            mean = _location(chunk, dtype)
            if start == 0:
                scale = _magnitude(mean, chunk[0].to(dtype))
            mean = mean / scale
            centered = workspace.matrix("chunk", n, len(mean), dtype, flat.device)
            # A product with a power of 2 is exact: this is (chunk - mean) / scale in one pass.
            torch.addcmul(-mean, chunk.to(dtype), 1 / scale, out=centered)
            for row in range(0, n, rows):
                gram[row : row + rows, : row + rows].addmm_(centered[row : row + rows], centered[: row + rows].T)
            mean_square += mean.dot(mean)
    return gram, scale * exceeds_rounding(gram.trace().sqrt(), (n * mean_square).sqrt())


def _location(features: Tensor, dtype: torch.dtype) -> Tensor:
    """``(d,)``: of ``(n, d)`` features, the median of three medians of three means of groups of samples each.

    Outliers in any three of the nine groups leave it where most samples are (for n < 9, in one of three groups).
    `torch.median` along columns takes longer than the Gram product.
    """
    n = len(features)
    groups = 9 if n >= 9 else min(n, 3)
    size = n // groups
    means = features[: groups * size].reshape(groups, size, -1).mean(1, dtype=dtype)
    while len(means) >= 3:
        first, second, third = means.unflatten(0, (3, -1))  # type: ignore[no-untyped-call]  # Of torch.
        means = torch.maximum(torch.minimum(first, second), torch.minimum(torch.maximum(first, second), third))
    return means[0]


def mirrored(lower: Tensor) -> Tensor:
    """The symmetric matrix of that lower triangle."""
    lower = lower.tril()
    return lower + lower.tril(-1).T


def u_centered(gram: Tensor) -> Tensor:
    """U-centered Gram matrix: off-diagonal rows sum to zero and the diagonal is zero.

    Args:
        gram: ``(..., n, n)`` symmetric Gram matrices, centered or not, n >= 4.

    Returns:
        ``(..., n, n)`` U-centered matrices, in the dtype of ``gram``.
    """
    n = gram.shape[-1]
    off_diagonal = gram - torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
    rows = off_diagonal.sum(-1) / (n - 2)
    shift = rows - rows.sum(-1, keepdim=True) / (2 * (n - 1))
    centered = off_diagonal - shift[..., :, None] - shift[..., None, :]
    centered.diagonal(dim1=-2, dim2=-1).zero_()
    return _zero_if_rounding(centered, off_diagonal)


def doubly_centered(gram: Tensor) -> Tensor:
    """Gram matrices ``(..., n, n)`` whose rows and columns sum to zero; exactly zero if nothing else is left."""
    rows = gram.mean(-1, keepdim=True)
    return _zero_if_rounding(gram - rows - rows.mT + rows.mean(-2, keepdim=True), gram)


def _zero_if_rounding(centered: Tensor, gram: Tensor) -> Tensor:
    """``(..., n, n)`` centered matrices, those set to zero that hold nothing but rounding errors."""
    largest, scale = (matrix.abs().amax((-2, -1), keepdim=True) for matrix in (centered, gram))
    return centered * exceeds_rounding(largest, scale)


def exceeds_rounding(magnitude: Tensor, scale: Tensor) -> Tensor:
    """Whether a magnitude is more than what rounding leaves of a difference of values of that scale.

    A constant layer less its mean is rarely exactly zero, and the CKA of rounding errors would look
    like any other number. A tensor, not a branch: a branch would make an accelerator wait. False for ``nan``.
    """
    exceeds: Tensor = magnitude > 8 * torch.finfo(magnitude.dtype).eps * scale
    return exceeds


def _magnitude(*vectors: Tensor) -> Tensor:
    """A power of 2 of the size of the largest entry; 1 if there is none but zero."""
    largest = torch.stack([vector.abs().amax() for vector in vectors]).amax()
    exponent = torch.frexp(largest).exponent
    # Beyond these, the power or its inverse would leave float32's range.
    return torch.ldexp(torch.ones_like(largest), exponent.clamp(-120, 120))


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Multiply in the operands' own precision: no autocast, no TF32, no bfloat16 passes."""
    with torch.autocast(device_type, enabled=False):
        if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch before 2.9
            precision = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(precision)
            return
        # The legacy getter raises once a user has used these newer switches, so read the switches.
        backends: tuple[Any, ...] = (torch.backends.cuda.matmul, cast(Any, torch.backends.mkldnn).matmul)
        reduced = {backend: backend.fp32_precision for backend in backends}
        reduced = {backend: value for backend, value in reduced.items() if value not in ("none", "ieee")}
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


def check_floating(tensor: Tensor) -> None:
    """Refuse what is not a real floating-point tensor, with a `TypeError`."""
    if not tensor.is_floating_point():
        raise TypeError(f"features must be a real floating-point tensor, but have dtype {tensor.dtype}")
