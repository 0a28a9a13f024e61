"""HSIC and CKA of single batches: tensors in, tensors out.

Notation: ``n`` samples, ``d`` features, ``K = X X^T`` the linear Gram matrix of centered features. Sources:
Kornblith et al. 2019 (https://arxiv.org/abs/1905.00414) for CKA; Song et al. 2012
(https://jmlr.org/papers/v13/song12a.html) for the unbiased estimator.
"""

from __future__ import annotations

from torch import Tensor

from lightning_cka.hsic.grams import MIN_SAMPLES, check_floating, doubly_centered, full_gram, gram_dtype, u_centered
from lightning_cka.hsic.kernel_grams import beyond_rounding
from lightning_cka.hsic.kernels import Kernel, KernelFn, resolve_kernel
from lightning_cka.hsic.precision import accumulator_dtype


def centered_gram(features: Tensor) -> Tensor:
    """Linear Gram matrix of features centered over the batch.

    Centering comes before the product, so that a large mean costs no digits. Half precision is
    multiplied in float32, and neither autocast nor a reduced ``float32_matmul_precision`` applies.

    Args:
        features: ``(n, ...)`` floating-point activations; all dimensions but the first are features.

    Returns:
        ``(n, n)`` doubly centered Gram matrix ``K``, float64 for float64 features and float32 otherwise.

    Raises:
        TypeError: the features are not a real floating-point tensor.
        ValueError: the features have no batch dimension.

    Example:
        >>> import torch
        >>> centered_gram(torch.tensor([[0.0], [1.0], [2.0]]))
        tensor([[ 1.,  0., -1.],
                [ 0.,  0.,  0.],
                [-1.,  0.,  1.]])
    """
    gram, scale = full_gram(features)
    return doubly_centered(gram) * scale**2


def unbiased_hsic(x_gram: Tensor, y_gram: Tensor) -> Tensor:
    """Unbiased estimator of HSIC (HSIC_1 of Song et al. 2012) from two Gram matrices.

    Args:
        x_gram: ``(n, n)`` symmetric Gram matrix, centered or not, n >= 4.
        y_gram: ``(n, n)`` Gram matrix of the same samples.

    Returns:
        Scalar; may be negative.

    Raises:
        ValueError: the shapes differ, are not square, or n < 4.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([0.0, 1.0, 3.0, 3.0])
        >>> unbiased_hsic(centered_gram(x), centered_gram(y))
        tensor(5.)
    """
    n = _check_gram_pair(x_gram, y_gram, MIN_SAMPLES)
    return (u_centered(x_gram) * u_centered(y_gram)).sum() / (n * (n - 3))


def biased_hsic(x_gram: Tensor, y_gram: Tensor) -> Tensor:
    """Biased estimator of HSIC (HSIC_0 of the literature) from two Gram matrices.

    Its bias grows with the number of features and falls with n: values compare across papers, but
    not across batch sizes.

    Args:
        x_gram: ``(n, n)`` symmetric Gram matrix, centered or not, n >= 2.
        y_gram: ``(n, n)`` Gram matrix of the same samples.

    Returns:
        Scalar ``<K, L>_F / (n - 1)^2`` of the doubly centered matrices.

    Raises:
        ValueError: the shapes differ, are not square, or n < 2.
    """
    n = _check_gram_pair(x_gram, y_gram, 2)
    return (doubly_centered(x_gram) * doubly_centered(y_gram)).sum() / (n - 1) ** 2


def cka(x: Tensor, y: Tensor, *, kernel: Kernel = "linear", unbiased: bool = True) -> Tensor:
    """CKA of two representations of one batch (Kornblith et al. 2019).

    Args:
        x: ``(n, ...)`` features; ``(n, n)`` Gram matrix with ``kernel="precomputed"``.
        y: likewise, for the same n samples; the number of features may differ.
        kernel: "linear", "rbf" or `lightning_cka.kernels.RBF`, "distance", a function of ``(n, n)`` squared
            distances that gives an ``(n, n)`` Gram matrix, or "precomputed".
        unbiased: use the unbiased HSIC (n >= 4), which makes small negative values possible. False: the biased
            one, comparable across papers, but not across batch sizes.

    Returns:
        Scalar in [-1, 1] (in [0, 1] if biased), up to rounding; ``nan`` if x or y has no variance.

    Raises:
        ValueError: unknown kernel, differing n, or too few samples.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [4.0, 1.0]])
        >>> round(cka(x, 3 * x + 7).item(), 5)
        1.0
    """
    function = resolve_kernel(kernel)
    grams = [z if kernel == "precomputed" else _kernel_gram(z, function) for z in (x, y)]
    _check_gram_pair(grams[0], grams[1], MIN_SAMPLES if unbiased else 2)
    center = u_centered if unbiased else doubly_centered
    # The product of two HSICs of float32 size can be beyond float32. What they are divided by cancels.
    k, ell = (center(gram).to(accumulator_dtype(gram.device)) for gram in grams)
    return ((k * ell).sum() / (k.square().sum() * ell.square().sum()).sqrt()).to(gram_dtype(x))


def _kernel_gram(features: Tensor, function: KernelFn | None) -> Tensor:
    """A Gram matrix but for a factor, which does not change CKA."""
    gram, scale = full_gram(features)
    if function is None:
        return gram * scale.sign()
    wide = gram.to(accumulator_dtype(gram.device))
    sums = wide.diagonal()[:, None] + wide.diagonal()
    found: Tensor = function(beyond_rounding(sums - 2 * wide, sums, gram.dtype) * scale.to(wide) ** 2)
    return found


def _check_gram_pair(x_gram: Tensor, y_gram: Tensor, min_samples: int) -> int:
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
