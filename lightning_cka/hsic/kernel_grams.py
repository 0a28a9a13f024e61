"""Kernel Gram matrices, computed from packed linear Gram matrices."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_cka.hsic.distance_errors import (
    hides_digits,
    largest_packed_deviation,
    packed_variances,
    zero_rounding_errors,
)
from lightning_cka.hsic.kernels import RBF, Kernel, KernelFn, resolve_kernel
from lightning_cka.hsic.median import median_distance
from lightning_cka.hsic.packed import (
    PackedGrams,
    has_imprecise_distances,
    pack_stack,
    select_layers,
    squared_distances,
    unpack,
    widened,
)
from lightning_cka.hsic.scaled_kernel import ScaledKernel

_CHUNK_ENTRIES = 2**18
"""Number of matrix entries in memory at a time."""


def apply_kernel(
    kernel: Kernel,
    grams: PackedGrams,
    medians: Tensor | None = None,
    *,
    unbiased: bool = True,
    checks_digits: bool = True,
) -> PackedGrams:
    """Return the kernel's Gram matrices of one batch.

    Args:
        kernel: The kernel; see `resolve_kernel`.
        grams: Linear Gram matrices of L layers.
        medians: Median squared distances ``(L,)`` that fix the bandwidths of an RBF kernel; None: those of this batch.
        unbiased: Whether the unbiased HSIC is computed from them. It needs more digits than the biased one.
        checks_digits: Whether rounding errors of the distances are looked at, which can take half of the time.

    Returns:
        Packed Gram matrices in float64; for the linear kernel, ``grams`` itself. The scale of a layer without variance
        is zero. It is ``nan`` where rounding errors of the distances would change CKA; see
        `lightning_cka.hsic.distance_errors`.
    """
    function = resolve_kernel(kernel)
    if function is None:
        return grams
    chunks = [
        _kernel_grams(function, part, medians if medians is None else medians[chosen], unbiased, checks_digits)
        for chosen, part in in_chunks(grams)
    ]
    return PackedGrams(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))


def _kernel_grams(
    function: KernelFn, grams: PackedGrams, medians: Tensor | None, unbiased: bool, checks_digits: bool
) -> PackedGrams:
    """Return the Gram matrices of a few layers."""
    squared = precise_distances(grams)
    scale = grams.scales.to(squared).square()
    if isinstance(function, RBF) and medians is None:
        medians = median_distance(squared) * scale
    kernel = ScaledKernel(function, scale, None if medians is None else medians.to(squared))
    full = kernel(squared)
    found = pack_stack(full)
    # Without variance, all distances are zero, and a kernel's values are all the same.
    scales = found.scales * scale.sign()
    if not checks_digits:
        return found._replace(scales=scales)
    norms = found.row_squares.sum(1)
    hidden = kernel.may_hide_digits(squared, full, largest_packed_deviation(grams, squared), norms)
    # An accelerator would have to wait for this branch.
    if squared.device.type != "cpu" or hidden.any():
        hidden = _hides_digits(kernel, grams, squared, norms if unbiased else unpack(found).square().sum((1, 2)))
    return found._replace(scales=scales.where(~hidden, torch.full_like(scales, torch.nan)))


def lacks_digits(scales: Tensor, linear: PackedGrams) -> bool:
    """Return whether a measure or kernel gave ``nan`` for a layer whose distances would have more digits in float64.

    It is always False on accelerators, which would have to wait for the answer.

    Args:
        scales: Scales of the kernel's Gram matrices or factors of the measure's vectors, ``(L,)``.
        linear: Linear Gram matrices that they were computed from.
    """
    if linear.halves.dtype != torch.float32 or linear.halves.device.type != "cpu":
        return False
    return bool((scales.isnan() & linear.offsets.isfinite().all(1)).any())


def _hides_digits(kernel: ScaledKernel, grams: PackedGrams, squared: Tensor, norms: Tensor) -> Tensor:
    """Return for which layers rounding errors of their distances change CKA; see `hides_digits`."""
    offsets = grams.offsets.to(squared)
    entries = squared / 2 + offsets[:, :, None] + offsets[:, None, :]
    return hides_digits(kernel, squared, packed_variances(grams, squared), entries, norms)


def precise_distances(grams: PackedGrams) -> Tensor:
    """Return the squared distances ``(L, n, n)`` of features / scale, in float64."""
    wide = widened(grams)
    sizes = wide.offsets.abs()
    magnitude = 2 * (sizes[:, :, None] + sizes[:, None, :])
    return zero_rounding_errors(squared_distances(wide), magnitude, grams.halves.dtype)


def in_chunks(grams: PackedGrams) -> Iterator[tuple[slice, PackedGrams]]:
    """Yield few layers at a time: full float64 matrices of all layers need much memory."""
    size = max(1, _CHUNK_ENTRIES // grams.num_samples**2)
    for start in range(0, len(grams.halves), size):
        chosen = slice(start, start + size)
        yield chosen, select_layers(grams, chosen)


def median_squared_distances(grams: PackedGrams) -> Tensor:
    """Return each layer's median squared distance over all n^2 entries, ``(L,)``, in float64."""
    medians = torch.cat([median_distance(precise_distances(part)) for _, part in in_chunks(grams)])
    # With a far outlier, rounding errors may look like distances of zero.
    medians = medians.where(~has_imprecise_distances(grams), torch.full_like(medians, torch.nan))
    return medians * grams.scales.to(medians).square()
