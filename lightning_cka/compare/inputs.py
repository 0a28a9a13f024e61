"""What `MinibatchCKA.update` is given: brought into the layers' order, and of one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lightning_cka.hsic.packed import PackedGrams

Features = Sequence[Tensor] | Mapping[str, Tensor] | PackedGrams


def layer_names(layers: int | Sequence[str], argument: str) -> tuple[str, ...]:
    """Names of the layers; numbers, if only their number is given.

    Raises:
        ValueError: there are none, or two have one name.
    """
    names = tuple(str(i) for i in range(layers)) if isinstance(layers, int) else tuple(layers)
    if not names or isinstance(layers, str):
        raise ValueError(f"{argument} must be a positive number or a sequence of names, but is {layers!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"{argument} must have distinct names, but are {list(names)}")
    return names


def ordered(features: Features, names: tuple[str, ...], argument: str) -> list[Tensor] | PackedGrams:
    """The features in the order of the names.

    Raises:
        ValueError: other layers than these.
    """
    if isinstance(features, PackedGrams):
        count = len(features.halves)
    else:
        if isinstance(features, Mapping):
            missing, unexpected = set(names) - set(features), set(features) - set(names)
            if missing or unexpected:
                raise ValueError(
                    f"{argument} must be the mapping's keys at each update; "
                    f"missing: {sorted(missing)}, unexpected: {sorted(unexpected)}"
                )
            features = [features[name] for name in names]
        count = len(features)
    if count != len(names):
        raise ValueError(f"expected features of {len(names)} {argument}, but got {count}")
    return features if isinstance(features, PackedGrams) else list(features)


def batch_size(features: list[Tensor] | PackedGrams) -> int:
    """The number of samples, which all layers must have in common.

    Raises:
        ValueError: they do not, or something is no tensor.
    """
    if isinstance(features, PackedGrams):
        return features.num_samples
    for tensor in features:
        if not isinstance(tensor, Tensor) or tensor.ndim == 0:
            raise ValueError(f"features must be tensors of shape (n, ...), but one is {tensor!r}")
    sizes = [len(tensor) for tensor in features]
    if len(set(sizes)) > 1:
        raise ValueError(f"all layers must have the same batch size in one update, but have n = {sizes}")
    return sizes[0]
