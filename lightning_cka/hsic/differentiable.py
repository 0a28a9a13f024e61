"""Linear Gram matrices through which gradients flow back to the features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_cka.hsic.grams import center_and_scale, flattened, gram_dtype, has_variance
from lightning_cka.hsic.precision import full_precision


def needs_gradient(tensor: Tensor) -> bool:
    """Return whether operations on a tensor are recorded for a backward pass."""
    return tensor.requires_grad and torch.is_grad_enabled()


def differentiable_gram(features: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Return the Gram matrix of (features - location) / scale as `lightning_cka.hsic.grams.full_gram`, with its graph.

    Location and scale count as constants: neither HSIC nor CKA changes with them.

    Args:
        features: Features, ``(n, ...)``.
        dtype: Dtype of the Gram matrix; None: float64 for float64 features, else float32.

    Returns:
        The Gram matrix, ``(n, n)``; and the scale, a scalar, which is 0 if the features have no variance.
    """
    flat = flattened(features)
    dtype = dtype or gram_dtype(features)
    with torch.no_grad():
        location, scale, rounding = center_and_scale(flat, dtype)
    gram: Tensor = _Gram.apply((flat.to(dtype) - location) / scale)  # type: ignore[no-untyped-call]  # In torch.
    return gram, scale * has_variance(gram.detach().trace(), len(flat) * rounding)


class _Gram(torch.autograd.Function):
    """X X^T, in full precision also in the backward pass, where autocast or TF32 may be switched on."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        with full_precision(x.device.type):
            gram = x @ x.mT
        return (gram + gram.mT) / 2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004  # As torch calls it.
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, gradient = ctx.saved_tensors[0], gradients[0]
        with full_precision(x.device.type):
            product: Tensor = (gradient + gradient.mT) @ x
            return product
