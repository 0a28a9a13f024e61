"""Kernels, as functions of the squared distances between samples.

A kernel is a name, an `RBF`, or a function of squared distances. These follow from a linear Gram matrix,
``D_ij = K_ii + K_jj - 2 K_ij``, so that a kernel needs no features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, SupportsFloat, cast

import torch
from torch import Tensor

KernelFn = Callable[[Tensor], Any]
"""A function from squared distances ``(n, n)`` to a Gram matrix ``(n, n)``."""

DEFAULT_THRESHOLD = 0.5
"""Threshold of "rbf"."""

MAX_THRESHOLD = 1e6
"""Largest threshold. Beyond it, the kernel differs from the linear one by less than 1e-12."""


@dataclass(frozen=True)
class RBF:
    """The Gaussian kernel ``exp(-D / (2 sigma^2))``. The bandwidth sigma is a multiple of the median distance.

    Comparisons of banks take the square root of the mean over batches of their median squared distances.
    `MinibatchCKA` takes the median of its first batch.

    CKA approaches that of the linear kernel as the bandwidth grows. A small bandwidth compares near neighbours, and
    an outlier then counts no more than any other sample. Source: Kornblith et al. 2019, section 4
    (https://arxiv.org/abs/1905.00414).

    Args:
        threshold: The bandwidth divided by the median distance. The default is that of the authors' demonstration.
            Their layer identification uses 0.2, 0.4 and 0.8.

    Raises:
        ValueError: The threshold is not positive, or above a million.
        TypeError: The threshold is not a number.

    Example:
        >>> import torch
        >>> from lightning_cka.functional import cka
        >>> x = torch.arange(6.0)[:, None]
        >>> round(cka(x, x.exp(), kernel=RBF(threshold=0.8)).item(), 2)
        0.91
    """

    threshold: float = DEFAULT_THRESHOLD

    def __post_init__(self) -> None:
        """Check the threshold."""
        if not isinstance(self.threshold, SupportsFloat):
            raise TypeError(
                f"the threshold of an RBF kernel must be a number, but is a {type(self.threshold).__name__}"
            )
        try:
            threshold = float(self.threshold)
        except OverflowError:
            threshold = inf
        if not threshold > 0 or threshold * threshold == 0:  # The square of a tiny number is 0.
            raise ValueError(f"the threshold of an RBF kernel must be positive, but is {threshold}")
        if threshold > MAX_THRESHOLD:
            raise ValueError(
                f"the threshold of an RBF kernel must be at most {MAX_THRESHOLD:g}, but is {threshold:g}. Such a "
                "kernel equals the linear one: pass kernel='linear'"
            )
        object.__setattr__(self, "threshold", threshold)

    def __call__(self, squared_distances: Tensor, median: Tensor | None = None) -> Tensor:
        """Return the Gram matrices minus 1.

        A constant does not change HSIC. Without the 1, a large bandwidth does not reduce the precision.

        Args:
            squared_distances: Squared distances, ``(..., n, n)``.
            median: Median squared distances, ``(...)``; None: the medians of all n^2 entries of ``squared_distances``.

        Returns:
            Gram matrices minus 1, ``(..., n, n)``; zero if all distances are zero. If only the median is zero, the
            entries at distance zero are ``nan``.
        """
        median = median_of(squared_distances) if median is None else median
        gram = torch.expm1(-squared_distances / (2 * self.threshold**2 * median[..., None, None]))
        no_variance = squared_distances.amax((-2, -1), keepdim=True) == 0
        return gram.where(~no_variance, torch.zeros_like(gram))


Kernel = str | RBF | KernelFn
"""A name, an `RBF`, or a function of squared distances."""


def distance(squared_distances: Tensor) -> Tensor:
    """Return the negative distances. Unbiased CKA of this kernel is the bias-corrected distance correlation.

    Source: Székely and Rizzo 2014 (https://arxiv.org/abs/1310.2926); Sejdinovic et al. 2013
    (https://arxiv.org/abs/1207.6076) for distances as kernels.

    Args:
        squared_distances: Squared distances, ``(..., n, n)``.

    Returns:
        Gram matrices, ``(..., n, n)``.
    """
    if squared_distances.requires_grad:
        # The slope of a root is infinite at zero. Where samples coincide, the gradient is zero.
        is_apart = squared_distances > 0
        roots = squared_distances.where(is_apart, torch.ones_like(squared_distances)).sqrt()
        return -roots.where(is_apart, torch.zeros_like(roots))
    return -squared_distances.sqrt()


LINEAR = ("linear", "precomputed")
NAMED: dict[str, KernelFn] = {"rbf": RBF(), "distance": distance}


def resolve_kernel(kernel: Kernel) -> KernelFn | None:
    """Return a kernel as a function of squared distances; None for "linear" and "precomputed".

    Raises:
        ValueError: The name is unknown.
        TypeError: The kernel is neither a name nor a function.
    """
    if callable(kernel):
        return kernel
    if not isinstance(kernel, str):
        raise TypeError(
            f"a kernel must be a name or a function of squared distances, but is {kernel!r}"
            + (" (only CKAMonitor takes several)" if isinstance(kernel, list | tuple) else "")
        )
    if kernel in LINEAR:
        return None
    if kernel not in NAMED:
        raise ValueError(
            f"unknown kernel {kernel!r}; expected one of {sorted((*LINEAR, *NAMED))}, lightning_cka.kernels.RBF(...), "
            "or a function of squared distances"
        )
    return NAMED[kernel]


def _listed(kernel: Any) -> list[Kernel]:
    """Return the kernels in a container. Those of a set are sorted: its order may differ between processes."""
    if isinstance(kernel, str) or callable(kernel):
        return [cast(Kernel, kernel)]
    try:
        kernels = list(kernel)
    except TypeError:
        return [cast(Kernel, kernel)]
    return sorted(kernels, key=kernel_name) if isinstance(kernel, set | frozenset) else kernels


def kernel_key(kernel: Kernel) -> str:
    """Return a kernel's name for logged keys, without its parameters."""
    return "rbf" if isinstance(kernel, RBF) else kernel_name(kernel)


def kernel_name(kernel: Kernel) -> str:
    """Return a kernel's name for results and figures, with its parameters."""
    if isinstance(kernel, RBF):
        return "rbf" if kernel == RBF() else f"rbf({kernel.threshold:g})"
    if isinstance(kernel, str):
        return kernel
    name = str(getattr(kernel, "__name__", type(kernel).__name__))
    return "custom" if name == "<lambda>" else name


def needs_median(kernel: Kernel) -> bool:
    """Return whether medians have to fix the kernel's bandwidth, so that all batches use the same one."""
    return isinstance(resolve_kernel(kernel), RBF)


def median_of(matrices: Tensor) -> Tensor:
    """Return the median of all entries of each matrix, as NumPy defines it.

    Args:
        matrices: Matrices, ``(..., n, n)``.

    Returns:
        Medians, ``(...)``: the mean of the two middle entries if n is even; ``nan`` if an entry is ``nan``.
    """
    ordered = matrices.flatten(-2).sort(-1).values
    count = ordered.shape[-1]
    # nan sorts last, so that 0 times the last entry makes the median nan.
    return (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2 + 0 * ordered[..., -1]
