"""Kernel Gram matrices, computed from packed linear Gram matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cka.hsic.check_kernels import checked_gram
from lightning_cka.hsic.kernels import RBF, Kernel, distance, resolve_kernel
from lightning_cka.hsic.median import median_distance
from lightning_cka.hsic.packed import (
    PackedGrams,
    has_imprecise_distances,
    pack_stack,
    select_layers,
    squared_distances,
)
from lightning_cka.hsic.precision import accumulator_dtype

_CHUNK_ENTRIES = 2**18
"""Number of matrix entries in memory at a time."""


def apply_kernel(kernel: Kernel, grams: PackedGrams, medians: Tensor | None = None) -> PackedGrams:
    """Return the kernel's Gram matrices of one batch.

    Args:
        kernel: The kernel; see `resolve_kernel`.
        grams: Linear Gram matrices of L layers.
        medians: Median squared distances ``(L,)`` that fix the bandwidths of an RBF kernel; None: those of this batch.

    Returns:
        Packed Gram matrices in float64; for the linear kernel, ``grams`` itself.
    """
    function = resolve_kernel(kernel)
    if function is None:
        return grams
    packed = []
    for layers in _chunks(grams):
        squared = _usable_distances(grams, layers)
        if isinstance(function, RBF):
            full = function(squared, None if medians is None else medians[layers].to(squared))
        elif function is distance:
            full = distance(squared)
        else:
            # A user's function gets one layer at a time: it need not accept a batch of matrices.
            full = torch.stack([checked_gram(function, each) for each in squared])
        packed.append(pack_stack(full))
    return PackedGrams(*(torch.cat(parts) for parts in zip(*packed, strict=True)))


def zero_rounding_errors(squared: Tensor, magnitude: Tensor, dtype: torch.dtype) -> Tensor:
    """Set squared distances to zero where they are no larger than rounding errors.

    Args:
        squared: Squared distances, ``(..., n, n)``, computed as sums of larger terms.
        magnitude: Size of these terms, ``(..., n, n)``.
        dtype: Dtype in which the terms were computed.

    Returns:
        Squared distances, ``(..., n, n)``.
    """
    return squared.where(~(squared <= 8 * torch.finfo(dtype).eps * magnitude), torch.zeros_like(squared))


def _usable_distances(grams: PackedGrams, layers: slice) -> Tensor:
    """Return the squared distances ``(l, n, n)`` of l layers in float64; ``nan`` where they are imprecise."""
    dtype = accumulator_dtype(grams.halves.device)
    grams = select_layers(grams, layers)
    wide = PackedGrams(*(part.to(dtype) for part in grams))
    sizes = wide.offsets.abs()
    magnitude = 2 * (sizes[:, :, None] + sizes[:, None, :])
    squared = zero_rounding_errors(squared_distances(wide), magnitude, grams.halves.dtype)
    is_imprecise = has_imprecise_distances(grams)[:, None, None]
    squared = squared.where(~is_imprecise, torch.full_like(squared, torch.nan))
    return squared * wide.scales.square()[:, None, None]


def _chunks(grams: PackedGrams) -> list[slice]:
    """Return slices of few layers: full float64 matrices of all layers need much memory."""
    size = max(1, _CHUNK_ENTRIES // grams.num_samples**2)
    return [slice(start, start + size) for start in range(0, len(grams.halves), size)]


def median_squared_distances(grams: PackedGrams) -> Tensor:
    """Return each layer's median squared distance over all n^2 entries, ``(L,)``, in float64."""
    return torch.cat([median_distance(_usable_distances(grams, layers)) for layers in _chunks(grams)])
