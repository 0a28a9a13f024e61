"""Checks of the arguments of `MinibatchCKA`: layer names, and the features of one batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from numbers import Integral

from torch import Tensor

from lightning_cka.hsic.arrays import Array, to_tensor
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.runtime.listed import listed

Features = Sequence[Array] | Mapping[str, Array] | PackedGrams


def layer_names(layers: int | Collection[str], argument: str) -> tuple[str, ...]:
    """Return the names of the layers: "0", "1", ... if only their number is given.

    Args:
        layers: Number of layers, or a container of their names. The names of a set are sorted.
        argument: Name of the argument, for messages.

    Raises:
        ValueError: There are no layers, a name is no string, or two have the same name.
    """
    if isinstance(layers, Integral):
        names = tuple(str(i) for i in range(int(layers)))
    else:
        names = listed(layers.keys() if isinstance(layers, Mapping) else layers)
    if not names or isinstance(layers, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{argument} must be a positive number or a sequence of names, but is {layers!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"{argument} must have distinct names, but are {list(names)}")
    return names


def in_layer_order(features: Features, names: tuple[str, ...], argument: str) -> list[Tensor] | PackedGrams:
    """Return the features in the order of the layer names.

    Args:
        features: Tensors or NumPy arrays in this order or keyed by name, or `PackedGrams`.
        names: Names of the layers.
        argument: Name of the argument that has the layer names, for messages.

    Raises:
        ValueError: The features belong to other layers, or to more or fewer.
        TypeError: A value is neither a tensor nor a NumPy array of numbers.
    """
    if isinstance(features, Mapping):
        features = _values_in_order(features, names, argument)
    count = len(features.halves) if isinstance(features, PackedGrams) else len(features)
    if count != len(names):
        raise ValueError(f"expected features of {len(names)} {argument}, but got {count}")
    return features if isinstance(features, PackedGrams) else [to_tensor(value) for value in features]


def _values_in_order(features: Mapping[str, Array], names: tuple[str, ...], argument: str) -> list[Array]:
    missing, unexpected = set(names) - set(features), set(features) - set(names)
    if missing or unexpected:
        raise ValueError(
            f"{argument} must be the mapping's keys at each update; "
            f"missing: {sorted(missing)}, unexpected: {sorted(unexpected)}"
        )
    return [features[name] for name in names]


def common_batch_size(
    features: list[Tensor] | PackedGrams, reference_features: list[Tensor] | PackedGrams | None
) -> int:
    """Return the number of samples that all layers of both models have.

    Raises:
        ValueError: The numbers differ, or a value is a scalar.
    """
    sizes = {_batch_size(side) for side in (features, reference_features) if side is not None}
    if len(sizes) > 1:
        raise ValueError(f"features and reference_features must be of one batch, but have n = {sorted(sizes)}")
    return sizes.pop()


def _batch_size(features: list[Tensor] | PackedGrams) -> int:
    if isinstance(features, PackedGrams):
        return features.num_samples
    for tensor in features:
        if tensor.ndim == 0:
            raise ValueError(f"features must be tensors of shape (n, ...), but one is {tensor!r}")
    sizes = [len(tensor) for tensor in features]
    if len(set(sizes)) > 1:
        raise ValueError(f"all layers must have the same batch size in one update, but have n = {sizes}")
    return sizes[0]
