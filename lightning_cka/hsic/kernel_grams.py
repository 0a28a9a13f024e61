"""Kernel Gram matrices, computed from packed linear ones."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cka.hsic.kernels import RBF, Kernel, checked_gram, distance, median_of, resolve_kernel
from lightning_cka.hsic.packed import PackedGrams, hidden_distances, pack_stack, select_layers, squared_distances
from lightning_cka.hsic.precision import accumulator_dtype

_ENTRIES = 2**18
"""Of the matrices that are in memory at a time."""


def apply_kernel(kernel: Kernel, grams: PackedGrams, medians: Tensor | None = None) -> PackedGrams:
    """The kernel's Gram matrices of one batch.

    Args:
        kernel: which.
        grams: linear Gram matrices of L layers.
        medians: ``(L,)`` median squared distances that fix the bandwidths; None: those of this batch.

    Returns:
        In float64, but for the linear kernel.
    """
    function = resolve_kernel(kernel)
    if function is None:
        return grams
    packed = []
    for layers in _chunks(grams):
        squared = _distances(grams, layers)
        if isinstance(function, RBF):
            full = function(squared, None if medians is None else medians[layers].to(squared))
        elif function is distance:
            full = distance(squared)
        else:
            # One layer at a time: a user's function need not know of more.
            full = torch.stack([checked_gram(function, each) for each in squared])
        packed.append(pack_stack(full))
    return PackedGrams(*(torch.cat(parts) for parts in zip(*packed, strict=True)))


def beyond_rounding(squared: Tensor, magnitude: Tensor, dtype: torch.dtype) -> Tensor:
    """Squared distances, those set to zero that are no more than rounding has left of the sums that they come from.

    Args:
        squared: ``(..., n, n)``.
        magnitude: ``(..., n, n)``, of the terms of these sums.
        dtype: in which they were computed.
    """
    return squared.where(~(squared <= 8 * torch.finfo(dtype).eps * magnitude), torch.zeros_like(squared))


def _distances(grams: PackedGrams, layers: slice) -> Tensor:
    """``(l, n, n)`` squared distances of l of the layers, in float64."""
    dtype = accumulator_dtype(grams.halves.device)
    grams = select_layers(grams, layers)
    wide = PackedGrams(*(part.to(dtype) for part in grams))
    sizes = wide.offsets.abs()
    magnitude = 2 * (sizes[:, :, None] + sizes[:, None, :])
    squared = beyond_rounding(squared_distances(wide), magnitude, grams.halves.dtype)
    hidden = hidden_distances(grams)[:, None, None]
    squared = squared.where(~hidden, torch.full_like(squared, torch.nan))
    return squared * wide.scales.square()[:, None, None]


def _chunks(grams: PackedGrams) -> list[slice]:
    """Few layers at a time: whole matrices of all layers in float64 would take much memory."""
    size = max(1, _ENTRIES // grams.num_samples**2)
    return [slice(start, start + size) for start in range(0, len(grams.halves), size)]


def median_squared_distances(grams: PackedGrams) -> Tensor:
    """``(L,)`` in float64: the median of each layer's squared distances, over all n^2 entries."""
    return torch.cat([median_of(_distances(grams, layers)) for layers in _chunks(grams)])
