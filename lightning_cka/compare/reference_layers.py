"""Which layers of a reference are compared, if the user chose only those of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from lightning_cka.compare.pairing import SAME_NAMES, Pair, pair_layers
from lightning_cka.probe.layers import LayerSelector, matches_all
from lightning_cka.runtime.module_names import named_layers


def layers_in_reference(
    layers: Sequence[str], selectors: tuple[LayerSelector, ...] | None, reference: nn.Module, pair: Pair
) -> tuple[LayerSelector, ...] | None:
    """Return the selection of a reference's layers that belong to those of a model.

    These are the layers of the same names. If the reference does not have all of them, they are the values of a
    mapping, the choice of the user for layers that are paired by position, or the layers that are paired by name
    without prefixes, as those of a bare backbone.

    Args:
        layers: Names of the model's layers.
        selectors: The user's choice of these; see `lightning_cka.probe.layers.check_layers`.
        reference: The reference.
        pair: How layers are paired; see `pair_layers`.

    Returns:
        The selection. If no layers are paired, the names of the model's layers.

    Raises:
        ValueError: Two removals of prefixes pair equally many layers.
    """
    known = named_layers(reference)
    if all(name in known for name in layers):
        return tuple(layers)
    if isinstance(pair, Mapping):
        return tuple(dict.fromkeys(pair.values())) or tuple(layers)
    if pair == "position":
        return selectors if matches_all(selectors, reference) else tuple(layers)
    pairing = pair_layers(layers, tuple(known))
    return tuple(layers) if pairing.how == SAME_NAMES else tuple(pairing.layers.values())


def same_choice(
    selectors: tuple[LayerSelector, ...] | None, layers: Sequence[str], reference: nn.Module, pair: Pair
) -> tuple[LayerSelector, ...] | None:
    """Return the user's choice of a model's layers, if it fits the reference, else `layers_in_reference`."""
    return selectors if matches_all(selectors, reference) else layers_in_reference(layers, selectors, reference, pair)
