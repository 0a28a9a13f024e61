"""Kernels, as functions of centered linear Gram matrices: no second look at the features is needed.

"linear" is the identity on them. "precomputed" is no function of features: the caller brings Gram
matrices of a kernel of their own, and `MinibatchCKA.update` takes them in place of features.
"""

from __future__ import annotations

from collections.abc import Callable

from lightning_cka.packed import PackedGrams

Kernel = Callable[[PackedGrams], PackedGrams]


def linear(grams: PackedGrams) -> PackedGrams:
    """The linear kernel: the Gram matrices as they are."""
    return grams


KERNELS: dict[str, Kernel] = {"linear": linear, "precomputed": linear}


def resolve_kernel(kernel: str) -> Kernel:
    """The kernel of that name.

    Raises:
        ValueError: there is no kernel of that name.
    """
    if kernel not in KERNELS:
        raise ValueError(f"unknown kernel {kernel!r}; expected one of {sorted(KERNELS)}")
    return KERNELS[kernel]


def check_feature_kernel(kernel: str) -> None:
    """Refuse what cannot be computed from a model's activations.

    Raises:
        ValueError: an unknown kernel, or "precomputed".
    """
    resolve_kernel(kernel)
    if kernel == "precomputed":
        raise ValueError(
            "kernel='precomputed' is for MinibatchCKA.update alone: a model gives features, not Gram matrices"
        )
