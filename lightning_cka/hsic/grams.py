"""HSIC and CKA of single batches: tensors in, tensors out.

Notation: ``n`` samples, ``d`` features, ``K = X X^T`` the linear Gram matrix of centered features. Sources:
Kornblith et al. 2019 (https://arxiv.org/abs/1905.00414) for CKA; Song et al. 2012
(https://jmlr.org/papers/v13/song12a.html) for the unbiased estimator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cka.hsic.folding import half_size
from lightning_cka.hsic.precision import full_precision

MIN_SAMPLES = 4
"""The unbiased HSIC divides by n - 3."""


# A chunk of centered features should stay in a CPU's cache; an accelerator wants larger products.
_CHUNK_BYTES_CPU = 4 * 2**20


_CHUNK_BYTES_ACCELERATOR = 64 * 2**20


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


def folded_gram(features: Tensor, folded: Tensor, corner: Tensor, workspace: Workspace) -> tuple[Tensor, Tensor]:
    """The Gram matrix K of (features - location) / scale, without the quarter that is the mirror image of another.

    HSIC does not depend on the location, but its digits do. A mean would be dragged along by a far outlier, and
    leave all other samples at its distance over n from the origin; a median of the means of some groups of
    samples stays where most samples are. The scale keeps squares of squares in float32's range.

    Args:
        features: ``(n, ...)``.
        folded: receives ``K[:, :h]``, h being `half_size` of n, in its own dtype.
        corner: ``(n - h, n - h)``, receives ``K[h:, h:]``.
        workspace: for centered features.

    Returns:
        The scale, a power of 2 near the features' size; and the squared norm of location / scale.
    """
    flat = _in_memory_order(features)
    (n, d), h, dtype, device = flat.shape, folded.shape[1], folded.dtype, flat.device
    budget = _CHUNK_BYTES_CPU if device.type == "cpu" else _CHUNK_BYTES_ACCELERATOR
    width = max(1, min(d, budget // max(1, n * dtype.itemsize)))
    squares: list[Tensor] = []
    with full_precision(device.type):
        for start in range(0, d, width):
            chunk = flat[:, start : start + width]
            means = _group_means(chunk, dtype)
            if start == 0:
                scale = _magnitude(means)
                inverse = scale.reciprocal()
            location = _middle(means) * inverse
            centered = workspace.matrix("chunk", n, len(location), dtype, device)
            # A product with a power of 2 is exact: this is (location - chunk) / scale in one pass.
            torch.addcmul(location, chunk.to(dtype), inverse, value=-1, out=centered)
            first, second = centered[:h], centered[h:]
            folded.addmm_(centered, first.T, beta=start > 0)
            corner.addmm_(second, second.T, beta=start > 0)
            squares.append(location.dot(location))
    return scale, sum(squares[1:], squares[0])


def full_gram(features: Tensor) -> tuple[Tensor, Tensor]:
    """The whole Gram matrix of `folded_gram`, exactly symmetric, and the scale; 0 if nothing but rounding varies.

    Returns:
        ``(n, n)``, in float32, or float64 if the features are; and a scalar.
    """
    n = features.shape[0] if features.ndim else 0
    h = half_size(n)
    gram = features.new_zeros(n, n, dtype=gram_dtype(features))
    scale, square = folded_gram(features, gram[:, :h], gram[h:, h:], Workspace())
    gram = gram.tril()
    return gram + gram.tril(-1).T, scale * varies(gram.trace(), n * square)


def varies(trace: Tensor, square: Tensor) -> Tensor:
    """Whether features vary by more than rounding, by the trace of their Gram matrix and n |location|^2."""
    return exceeds_rounding(trace.sqrt(), square.sqrt())


def gram_dtype(*features: Tensor) -> torch.dtype:
    """What their Gram matrices are computed in: float32, or float64 if any of them are."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in features) else torch.float32


def _in_memory_order(features: Tensor) -> Tensor:
    """``(n, d)`` of ``(n, ...)``, the features in the order in which they are in memory, which needs no copy."""
    check_floating(features)
    if features.ndim == 0:
        raise ValueError("features must have shape (n, ...), but came as a scalar")
    flat = features.detach()
    if flat.ndim != 2:
        # The Gram matrix does not depend on the order of the features.
        by_stride = sorted(range(1, flat.ndim), key=flat.stride, reverse=True)
        flat = flat.permute(0, *by_stride).reshape(len(flat), -1)
    return flat if flat.shape[1] else flat.new_zeros(len(flat), 1)


def _group_means(features: Tensor, dtype: torch.dtype) -> Tensor:
    """``(g, d)``: of ``(n, d)`` features, the means of 9 groups of up to 8 samples from all of the batch.

    For n < 9, of 3 groups, or as many as there are samples.
    """
    n = len(features)
    groups = 9 if n >= 9 else min(n, 3)
    size = min(n // groups, 8)
    some = features[:: n // (groups * size)][: groups * size]
    return some.view(groups, size, -1).mean(1, dtype=dtype)


def _middle(means: Tensor) -> Tensor:
    """``(d,)``: the median of three medians of three means each.

    Outliers in any three of nine groups leave it where most samples are (of three groups, in one of them).
    `torch.median` along columns takes longer than the Gram product.
    """
    while len(means) >= 3:
        first, second, third = means.view(3, -1, means.shape[1]).unbind()
        means = third.clamp(torch.minimum(first, second), torch.maximum(first, second))
    return means[0]


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


def _magnitude(means: Tensor) -> Tensor:
    """A power of 2 of the size of the largest entry of a middling group, which few outliers do not change; not 0.

    Not that of the location, which is next to nothing where each feature is that of few samples.
    """
    largest = torch.linalg.vector_norm(means, torch.inf, dim=1).median()
    # Beyond these, the power or its inverse would leave float32's range.
    return torch.ldexp(means.new_ones(()), torch.frexp(largest).exponent.clamp(-120, 120))


def check_floating(tensor: Tensor) -> None:
    """Refuse what is not a real floating-point tensor, with a `TypeError`."""
    if not tensor.is_floating_point():
        raise TypeError(f"features must be a real floating-point tensor, but have dtype {tensor.dtype}")
