"""Check the kernels that a user passes, by trying them on a few points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cka.hsic.kernels import Kernel, KernelFn, _listed, kernel_key, kernel_name, resolve_kernel


def check_feature_kernel(kernel: Kernel, n: int = 5) -> None:
    """Check that a kernel can be computed from activations, by evaluating it on n points.

    Raises:
        ValueError: The kernel is unknown or "precomputed", or the function does not return a finite and symmetric
            ``(n, n)`` matrix.
        TypeError: The kernel is neither a name nor a function.
    """
    function = resolve_kernel(kernel)
    if kernel == "precomputed":
        raise ValueError(
            "kernel='precomputed' works only with MinibatchCKA.update and functional.cka: a model gives features, not "
            "Gram matrices"
        )
    if function is not None:
        points = torch.arange(n, dtype=torch.float64, device="cpu").square()
        gram = checked_gram(function, (points[:, None] - points).square())
        if not gram.isfinite().all():
            raise ValueError(f"the Gram matrix of kernel {kernel_name(kernel)!r} has values that are not finite")
        if not torch.allclose(gram, gram.T):
            raise ValueError(f"the Gram matrix of kernel {kernel_name(kernel)!r} is not symmetric")


def check_kernels(kernel: Kernel | Sequence[Kernel]) -> dict[str, Kernel]:
    """Return one or several kernels by distinct names.

    Args:
        kernel: A kernel, or a container of kernels, such as a list, a set or ``dict.values()``.

    Returns:
        Kernels by name. Names that occur twice get a number, such as "rbf-2".

    Raises:
        ValueError: There is no kernel, or one is given twice, or `check_feature_kernel` raises.
        TypeError: A kernel is neither a name nor a function.
    """
    kernels = _listed(kernel)
    named: dict[str, Kernel] = {}
    for each in kernels:
        check_feature_kernel(each)
        if resolve_kernel(each) in [resolve_kernel(other) for other in named.values()]:
            raise ValueError(f"kernel {kernel_name(each)!r} is given twice")
        base = kernel_key(each)
        name = next(n for n in (base, *(f"{base}-{i}" for i in range(2, len(kernels) + 2))) if n not in named)
        named[name] = each
    if not named:
        raise ValueError("kernel is empty; expected at least one kernel")
    return named


def checked_gram(function: KernelFn, squared: Tensor) -> Tensor:
    """Return a user function's Gram matrix of squared distances ``(n, n)``, in their dtype.

    Raises:
        ValueError: The function does not return a floating-point tensor of shape ``(n, n)``.
    """
    gram = function(squared)
    if not isinstance(gram, Tensor) or gram.shape != squared.shape or not gram.is_floating_point():
        what = (
            f"a {type(gram).__name__}"
            if not isinstance(gram, Tensor)
            else f"shape {tuple(gram.shape)} and dtype {gram.dtype}"
        )
        raise ValueError(
            f"kernel {kernel_name(function)!r} must turn squared distances of shape {tuple(squared.shape)} into a "
            f"floating-point Gram matrix of that shape, but gave {what}"
        )
    return gram.to(squared.dtype)
