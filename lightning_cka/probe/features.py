"""Turn the output of a module into features of shape (n, ...)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence, unpack_sequence

from lightning_cka.runtime.nested import dataclass_values

FeatureFn = str | Callable[[Any], Any] | None


def float_tensors(output: Any) -> Iterator[Tensor | PackedSequence]:
    """Floating-point tensors in a module's output, ``last_hidden_state`` first; no scalars, such as a loss."""
    if isinstance(output, Tensor | PackedSequence):
        entries = output.data if isinstance(output, PackedSequence) else output
        if entries.is_floating_point() and entries.ndim:
            yield output
        return
    if not isinstance(output, Mapping):
        output = dataclass_values(output) or output
    if isinstance(output, Mapping):
        values = [output["last_hidden_state"]] if "last_hidden_state" in output else []
        output = values + list(output.values())
    if isinstance(output, list | tuple):
        for value in output:
            yield from float_tensors(value)


def is_of_tokens(shape: Sequence[int], mask: Tensor) -> bool:
    """Whether features are ``(n, T, d)`` of the tokens of an ``(n, T)`` mask."""
    return len(shape) == 3 and tuple(shape[:2]) == tuple(mask.shape)


def mean_feature(x: Tensor) -> Tensor:
    """Mean over all but batch and channel: of (n, T, d) over tokens, of (n, C, ...) over space."""
    if x.ndim <= 2:
        return x
    return x.mean(1) if x.ndim == 3 else x.flatten(2).mean(2)


def cls_feature(x: Tensor) -> Tensor:
    """The first token of (n, T, d); other outputs as they are."""
    return x[:, 0] if x.ndim == 3 else x


FEATURE_FNS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda x: x,
    "mean": mean_feature,
    "cls": cls_feature,
}


def check_feature_fn(feature_fn: FeatureFn) -> None:
    """Refuse an unknown name.

    Raises:
        ValueError: neither None, a known name nor a callable.
    """
    if feature_fn is not None and not callable(feature_fn) and feature_fn not in FEATURE_FNS:
        raise ValueError(f"unknown feature_fn {feature_fn!r}; expected one of {sorted(FEATURE_FNS)} or a callable")


def read_tensor(output: Any, feature_fn: FeatureFn) -> Tensor | None:
    """The tensor of a module's output that holds its samples: what a callable gives, or the first float tensor.

    Samples of unequal lengths, in a nested tensor or packed sequences, are padded with zeros; for "mean", reduced.
    """
    found = next(float_tensors(feature_fn(output) if callable(feature_fn) else output), None)
    if isinstance(found, PackedSequence):
        return _own_means(unpack_sequence(found)) if feature_fn == "mean" else pad_packed_sequence(found, True)[0]
    if found is not None and found.is_nested:
        return _own_means(found.unbind()) if feature_fn == "mean" else found.to_padded_tensor(0.0)
    return found


def _own_means(samples: Iterable[Tensor]) -> Tensor:
    return torch.stack([mean_feature(sample[None])[0] for sample in samples])


def to_features(tensor: Tensor, batch_dim: int, feature_fn: FeatureFn, mask: Tensor | None = None) -> Tensor:
    """Features ``(n, ...)`` of what `read_tensor` gave, whose samples lie along ``batch_dim``.

    The ``(n, T)`` mask tells which tokens "mean" is over in outputs ``(n, T, d)``.
    """
    tensor = tensor.movedim(batch_dim, 0)
    if feature_fn == "mean" and mask is not None and is_of_tokens(tensor.shape, mask):
        # In half precision, a sum may overflow where a mean does not.
        dtype = torch.promote_types(tensor.dtype, torch.float32)
        return tensor.masked_fill(~mask[..., None], 0).sum(1, dtype=dtype) / mask.sum(1, keepdim=True)
    return tensor if callable(feature_fn) else FEATURE_FNS[feature_fn or "flatten"](tensor)


def token_mask(batch: Any, num_samples: int) -> Tensor | None:
    """``(n, T)``: which tokens are no padding, by the ``attention_mask`` of a mapping, or of a first element.

    Raises:
        ValueError: the mask is one to be added to attention scores, where 0 stands for a token.
    """
    if isinstance(batch, list | tuple) and batch:
        batch = batch[0]
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor) or mask.ndim != 2 or len(mask) != num_samples:
        return None
    if mask.is_floating_point() and (mask < 0).any():
        raise ValueError(
            "the batch's attention_mask has negative values, as one that is added to attention scores, but "
            "feature_fn='mean' takes 1 for a token and 0 for padding: give it such a mask, or pass a feature_fn= of "
            "your own"
        )
    return mask != 0
