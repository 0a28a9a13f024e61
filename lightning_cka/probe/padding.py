"""Which tokens of a batch are padding, so that some of the ``feature_fn`` leave them out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

MASKED = ("mean", "last")
"""Values of ``feature_fn`` that leave padding out, beside "tokens"."""


def token_mask(batch: Any, num_samples: int) -> Tensor | None:
    """Return which tokens are not padding, by the ``attention_mask`` of the batch or of its first element.

    Args:
        batch: A mapping, or a list or tuple whose first element is one.
        num_samples: Number of samples n.

    Returns:
        ``(n, T)`` booleans, or None if there is no such mask.

    Raises:
        ValueError: The mask has negative values: it is added to attention scores, and 0 stands for a token.
    """
    if isinstance(batch, list | tuple) and batch:
        batch = batch[0]
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor) or mask.ndim != 2 or len(mask) != num_samples:
        return None
    if mask.is_floating_point() and (mask < 0).any():
        raise ValueError(
            "attention_mask has negative values, as a mask that is added to attention scores. feature_fn='mean' and "
            "'last' expect 1 for a token and 0 for padding: pass such a mask, or your own feature_fn="
        )
    return mask != 0


def is_covered(shape: Sequence[int], mask: Tensor) -> bool:
    """Whether features of this shape are ``(n, T, d)``, with the n and T of the ``(n, T)`` mask."""
    return len(shape) == 3 and tuple(shape[:2]) == tuple(mask.shape)


def warn_of_empty_samples(mask: Tensor, samples: Sequence[int], sample_kind: str) -> None:
    """Warn of samples that have no token, by their numbers."""
    if mask.any(1).all():
        return
    has_tokens = zip(samples, mask.any(1).tolist(), strict=True)
    empty = ", ".join(str(sample) for sample, has_any in has_tokens if not has_any)
    warnings.warn(
        f"attention_mask leaves no token of samples ({sample_kind}) {empty}: their features are nan", stacklevel=3
    )


def warn_of_padded_layers(shapes: Mapping[str, Sequence[int]], mask: Tensor, feature_fn: str) -> None:
    """Warn of layers whose features include padding, since the mask does not fit their output.

    Args:
        shapes: Shape ``(n, ...)`` of each layer's output, by layer name.
        mask: ``(n, T)`` booleans.
        feature_fn: "mean", "last" or "tokens".
    """
    if mask.all():
        return
    # Outputs (n, d) have one row per sample. They are taken as they are.
    padded = [name for name, shape in shapes.items() if len(shape) > 2 and not is_covered(shape, mask)]
    if padded:
        warnings.warn(
            f"feature_fn='{feature_fn}' includes padding in the features of layers whose output is not (n, T, d) with "
            f"the (n, T) = {tuple(mask.shape)} of attention_mask: {', '.join(padded)}",
            stacklevel=3,
        )
