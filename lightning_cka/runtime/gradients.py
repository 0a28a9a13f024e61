"""Keep the gradients of parameters away from a forward pass."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from lightning_cka.runtime.tensor_copies import Restore


def keep_gradients(parameters: Iterable[Tensor]) -> Restore:
    """Take the gradients from parameters. Return a function that puts them and ``requires_grad`` back.

    A forward pass that computes gradients, or changes them, then does so with none.
    """
    leaves = {id(p): p for p in parameters if p.is_leaf}.values()
    kept = [(p, p.requires_grad, p.grad) for p in leaves]
    for p, _, gradient in kept:
        if gradient is not None:
            p.grad = None

    def restore() -> None:
        for p, requires_grad, gradient in kept:
            if p.requires_grad != requires_grad:
                p.requires_grad_(requires_grad)
            if p.grad is not gradient:
                p.grad = gradient

    return restore
