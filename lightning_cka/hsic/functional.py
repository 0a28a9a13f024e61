"""Functions for HSIC and CKA of a single batch, on plain tensors or NumPy arrays.

Notation: ``n`` samples, ``d`` features, ``K = X X^T`` the linear Gram matrix of centered features. Sources:
Kornblith et al. 2019 (https://arxiv.org/abs/1905.00414) for CKA; Song et al. 2012
(https://jmlr.org/papers/v13/song12a.html) for the unbiased estimator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cka.hsic.arrays import Array, to_tensor
from lightning_cka.hsic.centering import doubly_centered, u_centered
from lightning_cka.hsic.cka_side import CKASide
from lightning_cka.hsic.differentiable import differentiable_gram, needs_gradient
from lightning_cka.hsic.grams import MIN_SAMPLES, check_gram_pair, full_gram, gram_dtype
from lightning_cka.hsic.kernels import Kernel, resolve_kernel


def centered_gram(features: Array) -> Tensor:
    """Return the linear Gram matrix of features, centered over the batch.

    Features are centered before the product, so that a large mean does not reduce the precision. Half precision is
    multiplied in float32. Autocast and a reduced ``float32_matmul_precision`` do not apply. Gradients flow back to the
    features. They are zero for features without variance.

    Args:
        features: Real floating-point activations, ``(n, ...)``. All dimensions but the first are features.

    Returns:
        Doubly centered Gram matrix ``K``, ``(n, n)``; float64 for float64 features, else float32.

    Raises:
        TypeError: The features are not a real floating-point tensor.
        ValueError: The features have no batch dimension.

    Example:
        >>> import torch
        >>> centered_gram(torch.tensor([[0.0], [1.0], [2.0]]))
        tensor([[ 1.,  0., -1.],
                [ 0.,  0.,  0.],
                [-1.,  0.,  1.]])
    """
    features = to_tensor(features)
    gram, scale = (differentiable_gram if needs_gradient(features) else full_gram)(features)
    return doubly_centered(gram) * scale**2


def unbiased_hsic(x_gram: Array, y_gram: Array) -> Tensor:
    """Return the unbiased estimate of HSIC (HSIC_1 of Song et al. 2012) from two Gram matrices.

    Args:
        x_gram: Symmetric Gram matrix, ``(n, n)``, centered or not, n >= 4.
        y_gram: Gram matrix of the same samples, ``(n, n)``.

    Returns:
        Scalar ``<U_K, U_L>_F / (n (n - 3))`` of the U-centered matrices; can be negative.

    Raises:
        TypeError: A matrix is not a real floating-point tensor.
        ValueError: The shapes differ or are not square, or n < 4.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([0.0, 1.0, 3.0, 3.0])
        >>> unbiased_hsic(centered_gram(x), centered_gram(y))
        tensor(5.)
    """
    x_gram, y_gram = to_tensor(x_gram), to_tensor(y_gram)
    n = check_gram_pair(x_gram, y_gram, MIN_SAMPLES)
    return (u_centered(x_gram) * u_centered(y_gram)).sum() / (n * (n - 3))


def biased_hsic(x_gram: Array, y_gram: Array) -> Tensor:
    """Return the biased estimate of HSIC (HSIC_0 in the literature) from two Gram matrices.

    The bias grows with the number of features and falls with n. Values are comparable with those of papers, but not
    between batch sizes.

    Args:
        x_gram: Symmetric Gram matrix, ``(n, n)``, centered or not, n >= 2.
        y_gram: Gram matrix of the same samples, ``(n, n)``.

    Returns:
        Scalar ``<K, L>_F / (n - 1)^2`` of the doubly centered matrices.

    Raises:
        TypeError: A matrix is not a real floating-point tensor.
        ValueError: The shapes differ or are not square, or n < 2.
    """
    x_gram, y_gram = to_tensor(x_gram), to_tensor(y_gram)
    n = check_gram_pair(x_gram, y_gram, 2)
    return (doubly_centered(x_gram) * doubly_centered(y_gram)).sum() / (n - 1) ** 2


def cka(x: Array, y: Array, *, kernel: Kernel = "linear", unbiased: bool = True) -> Tensor:
    """Return the CKA of two representations of one batch (Kornblith et al. 2019).

    It is differentiable in both arguments, so that ``1 - cka(x, y)`` can be a loss. Gradients of an RBF kernel include
    those of its bandwidth. The gradient is zero where CKA is ``nan``, and for distances between equal samples. Where
    rounding errors of float32 would hide the distances of a kernel, features on the CPU are computed in float64.

    Args:
        x: Features, ``(n, ...)``; with ``kernel="precomputed"``, a Gram matrix, ``(n, n)``.
        y: Features or Gram matrix of the same n samples. The number of features may differ from that of x.
        kernel: "linear", "rbf", `lightning_cka.kernels.RBF`, "distance" or "precomputed"; or a function from
            ``(n, n)`` squared distances to an ``(n, n)`` Gram matrix.
        unbiased: Whether to use the unbiased HSIC (n >= 4), which allows small negative values. The biased one is
            comparable with values of papers, but not between batch sizes.

    Returns:
        Scalar in [-1, 1] (in [0, 1] if biased), up to rounding; ``nan`` if x or y has no variance, or if rounding
        errors of distances would change it by more than about 0.1 %.

    Raises:
        TypeError: x or y is not a real floating-point tensor.
        ValueError: The kernel is unknown, n differs, or there are too few samples.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [4.0, 1.0]])
        >>> round(cka(x, 3 * x + 7).item(), 5)
        1.0
    """
    function = resolve_kernel(kernel)
    x, y = to_tensor(x), to_tensor(y)
    if kernel == "precomputed":
        sides = [CKASide(z, z.new_ones(()), None, unbiased) for z in (x, y)]
    else:
        sides = [CKASide.of_features(z, function, unbiased=unbiased) for z in (x, y)]
    check_gram_pair(sides[0].gram, sides[1].gram, MIN_SAMPLES if unbiased else 2)
    sides = [side.with_digits(z) for side, z in zip(sides, (x, y), strict=True)]
    value = _cosine(*(side.checked for side in sides))
    if any(needs_gradient(side.gram) for side in sides):
        is_defined = value.isfinite()
        with_graph = _cosine(*(side.where(is_defined).centered() for side in sides))
        value = with_graph.where(is_defined, torch.full_like(value, torch.nan))
    return value.to(gram_dtype(x))


def _cosine(k: Tensor, ell: Tensor) -> Tensor:
    # A product of two HSICs can overflow float32. Their normalisation cancels in the ratio and is left out.
    return (k * ell).sum() / (k.square().sum() * ell.square().sum()).sqrt()
