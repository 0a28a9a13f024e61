"""Linear Gram matrices of features, computed without losing precision.

Notation: ``n`` samples, ``d`` features, ``K = X X^T`` the linear Gram matrix of centered features.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from lightning_cka.hsic.folding import half_size
from lightning_cka.hsic.precision import full_precision

MIN_SAMPLES = 4
"""Smallest batch of the unbiased HSIC, which divides by n - 3."""

# A chunk of centered features should fit a CPU's cache. An accelerator is faster with larger products.
_CHUNK_BYTES_CPU = 4 * 2**20
_CHUNK_BYTES_ACCELERATOR = 64 * 2**20


class Workspace:
    """Memory that is reused from batch to batch: allocating new pages takes longer than a small product."""

    def __init__(self) -> None:
        self._memory: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def matrix(self, name: str, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return an uninitialized ``(rows, columns)`` matrix in the memory of that name."""
        key = (name, dtype, device)
        if key not in self._memory or len(self._memory[key]) < rows * columns:
            self._memory[key] = torch.empty(rows * columns, dtype=dtype, device=device)
        return self._memory[key][: rows * columns].view(rows, columns)


def folded_gram(features: Tensor, folded: Tensor, corner: Tensor, workspace: Workspace) -> tuple[Tensor, Tensor]:
    """Compute the Gram matrix K of (features - location) / scale, without the redundant upper right quarter.

    HSIC does not depend on the location, but its precision does. An outlier moves the mean, so features are centered
    with a median of means, which stays near most samples. The scale keeps fourth powers in float32's range.

    Args:
        features: Features, ``(n, ...)``.
        folded: Receives ``K[:, :h]``, where h = `half_size` of n; ``(n, h)``. Its dtype is that of the product.
        corner: Receives ``K[h:, h:]``; ``(n - h, n - h)``.
        workspace: Memory for centered features.

    Returns:
        The scale, a power of 2 near the size of the features; and the squared rounding error of one sample's features,
        in units of the scale; see `has_variance`.
    """
    flat = flattened(features.detach())
    (n, d), h, dtype, device = flat.shape, folded.shape[1], folded.dtype, flat.device
    budget = _CHUNK_BYTES_CPU if device.type == "cpu" else _CHUNK_BYTES_ACCELERATOR
    width = max(1, min(d, budget // max(1, n * dtype.itemsize)))
    squares: list[Tensor] = []
    with full_precision(device.type):
        for start in range(0, d, width):
            chunk = flat if width == d else flat[:, start : start + width]
            means = _group_means(chunk, dtype)
            if start == 0:
                scale = _number_near(means) if device.type == "cpu" else _power_of_two_near(means)
                inverse = 1 / scale
            # One sample with nan must not make the location nan, and with it all samples.
            location = (_median_of_medians(means) * inverse).nan_to_num(0.0, 0.0, 0.0)
            centered = workspace.matrix("chunk", n, len(location), dtype, device)
            # (location - chunk) / scale in one pass. Multiplying by a power of 2 is exact; the sign cancels in K.
            if isinstance(inverse, float):
                torch.sub(location, chunk.to(dtype), alpha=inverse, out=centered)
            else:
                torch.addcmul(location, chunk.to(dtype), inverse, value=-1, out=centered)
            first, second = centered.split_with_sizes([h, n - h])
            # Two products write K without its upper right quarter. With beta = 0, old content is ignored, even nan.
            folded.addmm_(centered, first.T, beta=start > 0)
            corner.addmm_(second, second.T, beta=start > 0)
            squares.append(location.dot(location))
    rounding = sum(squares[1:], squares[0]) * _smallest_spread(features.dtype, dtype) ** 2
    if not isinstance(scale, Tensor):
        scale = torch.full((), scale, dtype=dtype, device=device)
    return scale, rounding


def full_gram(features: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Return the full Gram matrix of `folded_gram`, exactly symmetric, and the scale.

    Args:
        features: Features, ``(n, ...)``.
        dtype: Dtype of the Gram matrix; None: float64 for float64 features, else float32.

    Returns:
        The Gram matrix, ``(n, n)``, and the scale, a scalar. The scale is 0 if the features vary by no more than
        rounding errors.
    """
    n = features.shape[0] if features.ndim else 0
    h = half_size(n)
    gram = torch.zeros(n, n, dtype=dtype or gram_dtype(features), device=features.device)
    scale, rounding = folded_gram(features, gram[:, :h], gram[h:, h:], Workspace())
    gram = gram.tril()
    return gram + gram.tril(-1).T, scale * has_variance(gram.trace(), n * rounding)


def has_variance(trace: Tensor, rounding: Tensor) -> Tensor:
    """Return whether features vary by more than rounding errors.

    Args:
        trace: Trace of the Gram matrix of features - location: n times their mean squared distance from the location.
        rounding: n times the squared rounding error of `folded_gram`, of the shape of ``trace``.

    Returns:
        Booleans, of the shape of ``trace``; False for ``nan``.
    """
    varies: Tensor = trace > rounding
    return varies


@lru_cache
def _smallest_spread(dtype: torch.dtype, gram: torch.dtype) -> float:
    """Return the smallest spread of features that counts as variance, as a part of the norm of their location.

    Features of a dtype are rounded to a grid of at most eps times their size, so that each has an error with a standard
    deviation of at most eps / sqrt(12) of its size. At a spread of 4 eps, 1/192 of the variance may be such errors. The
    location has rounding errors of its own, in the dtype of the Gram matrix.

    Args:
        dtype: Dtype of the features, such as bfloat16.
        gram: Dtype of the Gram matrix, float32 or float64.
    """
    return max(4 * torch.finfo(dtype).eps, 8 * torch.finfo(gram).eps)


def gram_dtype(*features: Tensor) -> torch.dtype:
    """Return the dtype of Gram matrices: float64 if any of the features are float64, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in features) else torch.float32


def flattened(features: Tensor) -> Tensor:
    """Flatten features ``(n, ...)`` to ``(n, d)`` in the order of their memory, which avoids a copy."""
    check_floating(features)
    if features.ndim == 0:
        raise ValueError("features must have shape (n, ...), but are a scalar")
    flat = features
    if flat.ndim != 2:
        # The Gram matrix does not depend on the order of the features.
        by_stride = [dim for dim, _ in memory_order(flat)]
        flat = flat.permute(0, *by_stride).reshape(len(flat), -1)
    return flat if flat.shape[1] else flat.new_zeros(len(flat), 1)


def memory_order(features: Tensor) -> list[tuple[int, int]]:
    """Return the dimensions of features ``(n, ...)`` without the first, and their sizes, by descending stride."""
    by_stride = sorted(range(1, features.ndim), key=features.stride, reverse=True)
    return [(dim, features.shape[dim]) for dim in by_stride]


def center_and_scale(features: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `folded_gram` subtracts from features and divides them by.

    Args:
        features: Features, ``(n, d)``.
        dtype: Dtype of the results.

    Returns:
        Location, ``(d,)``; the scale, a power of 2; and the squared rounding error of one sample's features, in units
        of the scale.
    """
    means = _group_means(features, dtype)
    scale = _power_of_two_near(means)
    location = (_median_of_medians(means) / scale).nan_to_num(0.0, 0.0, 0.0)
    return location * scale, scale, location.square().sum() * _smallest_spread(features.dtype, dtype) ** 2


def _group_means(features: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the means of g groups of up to 8 samples, spread over the batch.

    Args:
        features: Features, ``(n, d)``.
        dtype: Dtype of the means.

    Returns:
        Means, ``(g, d)``; g = 9 for n >= 9, else min(n, 3).
    """
    n = len(features)
    groups = 9 if n >= 9 else min(n, 3)
    size = min(n // groups, 8)
    step = n // (groups * size)
    some = features[: step * groups * size : step]
    return some.view(groups, size, -1).mean(1, dtype=dtype)


def _median_of_medians(means: Tensor) -> Tensor:
    """Return the median of three medians of three means each, per feature.

    Outliers in up to three of nine groups, or in one of three, do not move it far. `torch.median` along columns
    takes longer than the Gram product.

    Args:
        means: Means of 9, 3, 2 or 1 groups, ``(g, d)``. Of fewer than 3 groups, the first is returned.

    Returns:
        Location, ``(d,)``.
    """
    while len(means) >= 3:
        first, second, third = means.view(3, -1, means.shape[1]).unbind()
        # The median of three values is the third, clamped to the range of the other two.
        means = third.clamp(torch.minimum(first, second), torch.maximum(first, second))
    return means[0]


def _power_of_two_near(means: Tensor) -> Tensor:
    """Return a power of 2 near the largest entry of the median group of means ``(g, d)``; never 0.

    The median group is robust to a few outliers. The location would not do: for sparse features it is close to zero.
    """
    largest = means.abs().amax(1).nanmedian()  # `vector_norm` takes four times as long.
    # With larger exponents, the power or its inverse would leave float32's range.
    return torch.ldexp(means.new_ones(()), torch.frexp(largest).exponent.clamp(-120, 120))


def _number_near(means: Tensor) -> float:
    """Return the same as a number: on a CPU, each operation with one number takes as long as with a thousand."""
    sizes = sorted(size for size in means.abs().amax(1).tolist() if size == size)
    exponent = math.frexp(sizes[(len(sizes) - 1) // 2])[1] if sizes else 0
    return math.ldexp(1.0, min(max(exponent, -120), 120))


def check_floating(tensor: Tensor) -> None:
    """Raise a `TypeError` unless a tensor is real and floating-point."""
    if not tensor.is_floating_point():
        hint = ". torch.view_as_real makes them real" if tensor.is_complex() else ""
        raise TypeError(f"features must be a real floating-point tensor, but have dtype {tensor.dtype}{hint}")


def check_gram_pair(x_gram: Tensor, y_gram: Tensor, min_samples: int) -> int:
    """Return n if both are Gram matrices of the same n samples, and n is large enough; else raise."""
    for gram in (x_gram, y_gram):
        check_floating(gram)
        if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
            raise ValueError(f"a Gram matrix must have shape (n, n), but has {tuple(gram.shape)}")
    if x_gram.shape != y_gram.shape:
        raise ValueError(
            f"both Gram matrices must be of the same samples, but have n = {len(x_gram)} and n = {len(y_gram)}"
        )
    if len(x_gram) < min_samples:
        raise ValueError(f"at least {min_samples} samples are needed, but n = {len(x_gram)}")
    return len(x_gram)
