"""Kernels, as functions of centered linear Gram matrices: no second look at the features is needed.

A kernel is a name, an `RBF`, or a function of the squared distances between samples, which follow from a
linear Gram matrix: ``D_ij = K_ii + K_jj - 2 K_ij``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

KernelFn = Callable[[Tensor], Any]


DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class RBF:
    """The Gaussian kernel ``exp(-D / (2 sigma^2))``, whose bandwidth sigma is a multiple of the median distance.

    The larger the bandwidth, the nearer to the linear kernel. A smaller one looks at near neighbours, and a far
    outlier then counts for no more than any other sample. Source: Kornblith et al. 2019, section 4
    (https://arxiv.org/abs/1905.00414).

    Args:
        threshold: the multiple; the default is that of the authors' demonstration. Their layer identification has 0.2,
            0.4 and 0.8.

    Raises:
        ValueError: the threshold is not positive.

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
        if not self.threshold > 0:
            raise ValueError(f"the threshold of an RBF kernel must be positive, but is {self.threshold}")

    def __call__(self, squared_distances: Tensor, median: Tensor | None = None) -> Tensor:
        """The Gram matrices, less 1.

        Args:
            squared_distances: ``(..., n, n)``.
            median: ``(...)``, median squared distances; None: those of ``squared_distances``, of all n^2 entries.

        Returns:
            ``(..., n, n)``: a constant does not change HSIC, and without the 1 a large bandwidth costs no digits.
            ``nan`` if the median is zero, and yet not all distances are.
        """
        median = median_of(squared_distances) if median is None else median
        gram = torch.expm1(-squared_distances / (2 * self.threshold**2 * median[..., None, None]))
        no_variance = squared_distances.amax((-2, -1), keepdim=True) == 0
        return gram.where(~no_variance, torch.zeros_like(gram))


Kernel = str | RBF | KernelFn


def distance(squared_distances: Tensor) -> Tensor:
    """The negative distance, whose unbiased CKA is the bias-corrected distance correlation.

    Source: Székely and Rizzo 2014 (https://arxiv.org/abs/1310.2926); Sejdinovic et al. 2013
    (https://arxiv.org/abs/1207.6076) for distances as kernels.

    Args:
        squared_distances: ``(..., n, n)``.

    Returns:
        ``(..., n, n)``.
    """
    return -squared_distances.sqrt()


LINEAR = ("linear", "precomputed")


NAMED: dict[str, KernelFn] = {"rbf": RBF(), "distance": distance}


def resolve_kernel(kernel: Kernel) -> KernelFn | None:
    """The function of squared distances that is meant; None for the linear kernel and for precomputed matrices.

    Raises:
        ValueError: there is no kernel of that name.
        TypeError: neither a name nor a function.
    """
    if callable(kernel):
        return kernel
    if not isinstance(kernel, str):
        raise TypeError(
            f"a kernel must be a name or a function of squared distances, but is {kernel!r}"
            + (" (CKAMonitor alone takes several)" if isinstance(kernel, list | tuple) else "")
        )
    if kernel in LINEAR:
        return None
    if kernel not in NAMED:
        raise ValueError(
            f"unknown kernel {kernel!r}; expected one of {sorted((*LINEAR, *NAMED))}, lightning_cka.kernels.RBF(...), "
            "or a function of squared distances"
        )
    return NAMED[kernel]


def check_feature_kernel(kernel: Kernel, n: int = 5) -> None:
    """Refuse what cannot be computed from a model's activations, by trying it on n points.

    Raises:
        ValueError: an unknown kernel, "precomputed", or a function that gives no symmetric ``(n, n)`` matrix.
        TypeError: neither a name nor a function.
    """
    function = resolve_kernel(kernel)
    if kernel == "precomputed":
        raise ValueError(
            "kernel='precomputed' is for MinibatchCKA.update and functional.cka alone: a model gives features, not "
            "Gram matrices"
        )
    if function is not None:
        points = torch.arange(n, dtype=torch.float64).square()
        gram = checked_gram(function, (points[:, None] - points).square())
        if not gram.isfinite().all():
            raise ValueError(f"the Gram matrix of kernel {kernel_name(kernel)!r} has values that are not finite")
        if not torch.allclose(gram, gram.T):
            raise ValueError(f"the Gram matrix of kernel {kernel_name(kernel)!r} is not symmetric")


def check_kernels(kernel: Kernel | Sequence[Kernel]) -> dict[str, Kernel]:
    """One or several kernels by distinct names.

    Raises:
        ValueError: see `check_feature_kernel`; or there is none, or the same twice.
        TypeError: neither names nor functions.
    """
    kernels = cast(list[Kernel], list(kernel) if isinstance(kernel, list | tuple) else [kernel])
    named: dict[str, Kernel] = {}
    for each in kernels:
        check_feature_kernel(each)
        if resolve_kernel(each) in [resolve_kernel(other) for other in named.values()]:
            raise ValueError(f"kernel {kernel_name(each)!r} is there twice")
        base = kernel_key(each)
        name = next(n for n in (base, *(f"{base}-{i}" for i in range(2, len(kernels) + 2))) if n not in named)
        named[name] = each
    if not named:
        raise ValueError("kernel is empty; expected a kernel or several")
    return named


def kernel_key(kernel: Kernel) -> str:
    """A kernel's name in logged keys, without its parameters."""
    return "rbf" if isinstance(kernel, RBF) else kernel_name(kernel)


def kernel_name(kernel: Kernel) -> str:
    """A kernel's name in results and figures."""
    if isinstance(kernel, RBF):
        return "rbf" if kernel == RBF() else f"rbf({kernel.threshold:g})"
    if isinstance(kernel, str):
        return kernel
    name = str(getattr(kernel, "__name__", type(kernel).__name__))
    return "custom" if name == "<lambda>" else name


def needs_median(kernel: Kernel) -> bool:
    """Whether a bandwidth has to be fixed by a first batch, so that other batches compare with it."""
    return isinstance(resolve_kernel(kernel), RBF)


def median_of(matrices: Tensor) -> Tensor:
    """``(...)``, the median of the entries of ``(..., n, n)`` matrices; of an even number, the mean of the middle two.

    ``nan`` if an entry is.
    """
    ordered = matrices.flatten(-2).sort(-1).values
    count = ordered.shape[-1]
    return (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2 + 0 * ordered[..., -1]


def checked_gram(function: KernelFn, squared: Tensor) -> Tensor:
    gram = function(squared)
    name = kernel_name(function)
    if not isinstance(gram, Tensor) or gram.shape != squared.shape or not gram.is_floating_point():
        what = (
            f"a {type(gram).__name__}"
            if not isinstance(gram, Tensor)
            else f"shape {tuple(gram.shape)} and dtype {gram.dtype}"
        )
        raise ValueError(
            f"kernel {name!r} must turn squared distances of shape {tuple(squared.shape)} into a floating-point "
            f"Gram matrix of that shape, but gave {what}"
        )
    return gram.to(squared.dtype)
