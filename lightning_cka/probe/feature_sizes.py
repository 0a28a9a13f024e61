"""Sizes of the features that a dry run has seen: how much memory a Gram block needs, and whether it can be joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_cka.probe.block_features import is_alike, unequal_message
from lightning_cka.probe.dry_run_outputs import LayerOutput
from lightning_cka.probe.features import FeatureFn, to_features
from lightning_cka.probe.probe_set import ProbeBatch
from lightning_cka.probe.tokens import tokens_per_sequence
from lightning_cka.runtime.nested import tensors_in


def bytes_per_sample(outputs: Mapping[str, LayerOutput], batch_dims: Mapping[str, int], feature_fn: FeatureFn) -> int:
    """Return the size of one sample's features of all layers, in bytes."""
    features = [_features(outputs[name], dim, feature_fn) for name, dim in batch_dims.items()]
    return sum(each[:1].numel() * each.element_size() for each in features)


def unequal_layers(
    passes: Sequence[Mapping[str, LayerOutput]], batch_dims: Mapping[str, int], feature_fn: FeatureFn
) -> dict[str, str]:
    """Return the layers whose features differ in size between forward passes, with the reason as a verb phrase.

    Args:
        passes: Outputs in the forward passes of one Gram block, by layer name.
        batch_dims: Which dimension of each layer's output is the batch.
        feature_fn: See `to_features`.
    """
    reasons = {}
    for name, dim in batch_dims.items():
        outputs = [outputs[name] for outputs in passes if name in outputs]
        features = [_features(output, dim, feature_fn) for output in outputs if len(output.shape or ()) > dim]
        other = next((each for each in features if not is_alike(features[0], each)), None)
        if other is not None:
            reasons[name] = unequal_message(features[0], other)
    return reasons


def have_equal_inputs(batches: Sequence[ProbeBatch]) -> bool:
    """Whether the tensors of all batches have the same shape for each sample."""
    shapes = [_shapes(batch) for batch in batches]
    return all(each == shapes[0] for each in shapes)


def _shapes(batch: ProbeBatch) -> list[tuple[int, ...]]:
    n = batch.num_samples
    shapes = [tuple(tensor.shape) for tensor in tensors_in(batch.data)]
    return [shape[1:] if shape[:1] == (n,) else (-1, *shape) for shape in shapes]


def _features(output: LayerOutput, batch_dim: int, feature_fn: FeatureFn) -> Tensor:
    """Return features of an output's shape and dtype, without memory."""
    tensor = torch.empty(output.shape or (1,), dtype=output.dtype, device="meta")
    features = to_features(tensor, batch_dim, feature_fn)
    tokens = tokens_per_sequence(feature_fn)
    if tokens is None:
        return features
    one = features[:, :1] if features.ndim == 3 else features[:, None]
    return one.expand(len(one), tokens, *one.shape[2:])


def number_of_tokens(shapes: Sequence[Sequence[int]], mask: Tensor | None) -> int:
    """Return the number of tokens T of the layers whose outputs are ``(n, T, d)``: that of most of them.

    Args:
        shapes: Shapes ``(n, ...)`` of the layers' outputs.
        mask: ``(n, T)``: which tokens are not padding. None: all sequences have the same number of tokens.

    Raises:
        ValueError: There is no such layer.
    """
    lengths = [shape[1] for shape in shapes if len(shape) == 3]
    lengths = lengths if mask is None else [length for length in lengths if length == mask.shape[1]]
    if not lengths:
        of_mask = "" if mask is None else f" with the T = {mask.shape[1]} of attention_mask"
        raise ValueError(
            f"feature_fn='tokens' needs layers whose outputs are (n, T, d){of_mask}, but there is none: choose such "
            "layers with layers=, or pass another feature_fn="
        )
    return max(lengths, key=lengths.count)
