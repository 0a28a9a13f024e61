"""U-centering and double centering of Gram matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def u_centered(gram: Tensor) -> Tensor:
    """Return U-centered Gram matrices: each row sums to zero, and the diagonal is zero.

    Source: Székely and Rizzo 2014 (https://arxiv.org/abs/1310.2926).

    Args:
        gram: Symmetric Gram matrices, ``(..., n, n)``, centered or not, n >= 4.

    Returns:
        U-centered matrices, ``(..., n, n)``, in the dtype of ``gram``; zero if only rounding errors remain.
    """
    n = gram.shape[-1]
    off_diagonal = gram - torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
    rows = off_diagonal.sum(-1) / (n - 2)
    shift = rows - rows.sum(-1, keepdim=True) / (2 * (n - 1))
    centered = off_diagonal - shift[..., :, None] - shift[..., None, :]
    centered.diagonal(dim1=-2, dim2=-1).zero_()
    return _zero_if_rounding(centered, off_diagonal)


def doubly_centered(gram: Tensor) -> Tensor:
    """Return Gram matrices whose rows and columns sum to zero.

    Args:
        gram: Symmetric Gram matrices, ``(..., n, n)``.

    Returns:
        Doubly centered matrices, ``(..., n, n)``; zero if only rounding errors remain.
    """
    rows = gram.mean(-1, keepdim=True)
    return _zero_if_rounding(gram - rows - rows.mT + rows.mean(-2, keepdim=True), gram)


def _zero_if_rounding(centered: Tensor, gram: Tensor) -> Tensor:
    """Set each centered matrix of ``(..., n, n)`` to zero that holds only rounding errors of ``gram``."""
    largest, scale = (matrix.abs().amax((-2, -1), keepdim=True) for matrix in (centered, gram))
    return centered * exceeds_rounding(largest, scale)


def exceeds_rounding(magnitude: Tensor, scale: Tensor) -> Tensor:
    """Return whether a magnitude is larger than the rounding error of a difference of values of size ``scale``.

    A constant layer minus its mean is rarely exactly zero. The CKA of such rounding errors would look like any other
    number. The result is a tensor and not a branch, because a branch would wait for the accelerator.

    Returns:
        Booleans, of the shape of ``magnitude``; False for ``nan``.
    """
    exceeds: Tensor = magnitude > 8 * torch.finfo(magnitude.dtype).eps * scale
    return exceeds
