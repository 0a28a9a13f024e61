"""Turn the output of a module into features of shape (n, ...)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence, unpack_sequence

from lightning_cka.hsic.arrays import to_tensor
from lightning_cka.probe.padding import is_covered
from lightning_cka.probe.tokens import tokens_per_sequence
from lightning_cka.runtime.nested import dataclass_values

FeatureFn = str | Callable[[Any], Any] | None


def float_tensors(output: Any) -> Iterator[Tensor | PackedSequence]:
    """Yield the floating-point tensors and arrays in an output, ``last_hidden_state`` first, without scalars."""
    if isinstance(output, np.ndarray) and output.dtype.kind == "f":
        output = to_tensor(output)
    if isinstance(output, Tensor | PackedSequence):
        entries = output.data if isinstance(output, PackedSequence) else output
        if entries.is_floating_point() and entries.ndim:
            yield output
        return
    for value in _parts(output):
        yield from float_tensors(value)


def _parts(output: Any) -> Iterable[Any]:
    """Return the values in a mapping, a dataclass, a list or a tuple; nothing for other objects."""
    values = output if isinstance(output, Mapping) else dataclass_values(output)
    if values:
        # A stable sort: False sorts before True.
        return [values[key] for key in sorted(values, key=lambda key: key != "last_hidden_state")]
    return output if isinstance(output, list | tuple) else ()


def has_complex(output: Any) -> bool:
    """Return whether there is a complex tensor in a module's output."""
    if isinstance(output, Tensor):
        return output.is_complex()
    return any(map(has_complex, _parts(output)))


def mean_feature(x: Tensor) -> Tensor:
    """Average over tokens for (n, T, d), and over space for (n, C, ...). Return (n, d) as it is."""
    if x.ndim <= 2:
        return x
    return x.mean(1) if x.ndim == 3 else x.flatten(2).mean(2)


def cls_feature(x: Tensor) -> Tensor:
    """Return the first token of (n, T, d), and other outputs as they are."""
    return x[:, 0] if x.ndim == 3 else x


def last_feature(x: Tensor) -> Tensor:
    """Return the last token of (n, T, d), and other outputs as they are."""
    return x[:, -1] if x.ndim == 3 else x


FEATURE_FNS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda x: x,
    "mean": mean_feature,
    "cls": cls_feature,
    "last": last_feature,
}


def check_feature_fn(feature_fn: FeatureFn) -> None:
    """Check that a feature function is known.

    Raises:
        ValueError: It is neither None, a known name nor a callable.
    """
    is_known = feature_fn is None or callable(feature_fn) or feature_fn in FEATURE_FNS
    if not is_known and tokens_per_sequence(feature_fn) is None:
        known = [*sorted(FEATURE_FNS), "tokens", "tokens:N"]
        raise ValueError(
            f"unknown feature_fn {feature_fn!r}; expected one of {known}, where N is a number, or a callable"
        )


def read_tensor(output: Any, feature_fn: FeatureFn) -> Tensor | None:
    """Return the tensor of a module's output that holds its samples.

    It is the first floating-point tensor, in the output or in what a callable ``feature_fn`` returns. Samples of
    unequal lengths, in a nested tensor or packed sequences, are averaged for "mean", give their last token for "last",
    and are padded with zeros otherwise.

    Returns:
        The tensor, or None if there is none.
    """
    found = next(float_tensors(feature_fn(output) if callable(feature_fn) else output), None)
    is_pooled = feature_fn in ("mean", "last")
    if isinstance(found, PackedSequence):
        return _pooled(unpack_sequence(found), feature_fn) if is_pooled else pad_packed_sequence(found, True)[0]
    if found is not None and found.is_nested:
        return _pooled(found.unbind(), feature_fn) if is_pooled else found.to_padded_tensor(0.0)
    return found


def _pooled(samples: Iterable[Tensor], feature_fn: FeatureFn) -> Tensor:
    """Return "mean" or "last" of samples of unequal lengths."""
    return torch.stack([FEATURE_FNS[str(feature_fn)](sample[None])[0] for sample in samples])


def to_features(tensor: Tensor, batch_dim: int, feature_fn: FeatureFn, mask: Tensor | None = None) -> Tensor:
    """Turn the tensor that `read_tensor` returned into features ``(n, ...)``.

    Args:
        tensor: The layer's output, with n entries along ``batch_dim``.
        batch_dim: Which dimension is the batch.
        feature_fn: "flatten", "mean", "cls", "last", or None, which is "flatten". A callable was applied before. Tokens
            are chosen later: "tokens" returns the tensor as it is.
        mask: ``(n, T)``: which tokens of outputs ``(n, T, d)`` "mean" averages and "last" chooses from. None: all.
    """
    tensor = tensor.movedim(batch_dim, 0)
    if feature_fn == "last" and mask is not None and is_covered(tensor.shape, mask):
        return _last_tokens(tensor, mask)
    if feature_fn == "mean" and mask is not None and is_covered(tensor.shape, mask):
        # In half precision, a sum may overflow where a mean does not.
        dtype = torch.promote_types(tensor.dtype, torch.float32)
        return tensor.masked_fill(~mask[..., None], 0).sum(1, dtype=dtype) / mask.sum(1, keepdim=True)
    return FEATURE_FNS.get(str(feature_fn), FEATURE_FNS["flatten"])(tensor)


def _last_tokens(tensor: Tensor, mask: Tensor) -> Tensor:
    """Return the last token ``(n, d)`` that the mask has in each sample, wherever its padding is; ``nan`` for none."""
    places = torch.arange(mask.shape[1], device=mask.device).masked_fill(~mask, -1).amax(1)
    last = tensor[torch.arange(len(tensor), device=tensor.device), places.clamp(min=0)]
    return last.masked_fill((places < 0)[:, None], torch.nan)
