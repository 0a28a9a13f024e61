"""Which layers are compared for flags: each layer with one partner, because all pairs would take too long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Partners(NamedTuple):
    """P pairs of a row and a column of the CKA matrix. Each row and each column is in at least one of them."""

    rows: list[int]
    """Indices of the model's layers."""
    columns: list[int]
    """Indices of the reference's layers."""


def partners(
    layers: Sequence[str], reference_layers: Sequence[str] | None, paired: Mapping[str, str] | None = None
) -> Partners:
    """Return the pairs of layers that flags look at.

    The partner of a layer is the layer that it is paired with. Without one, it is the layer at the same relative depth.
    If a model is compared with itself, it is the next layer, and for the last layer the one before it.

    Args:
        layers: Names of the model's layers.
        reference_layers: Names of the reference's layers. None: the model is compared with itself.
        paired: The reference's layer of each paired layer, by name. None: layers of the same names.
    """
    last = len(layers) - 1
    if reference_layers is None:
        return Partners(list(range(last + 1)), [row + 1 if row < last else max(0, row - 1) for row in range(last + 1)])
    columns = {name: column for column, name in enumerate(reference_layers)}
    others = [name if paired is None else paired.get(name) for name in layers]
    pairs = {(row, -1 if name is None else columns.get(name, -1)) for row, name in enumerate(others)}
    pairs = {(row, column if column >= 0 else _at_depth(row, len(layers), len(columns))) for row, column in pairs}
    alone = set(columns.values()) - {column for _, column in pairs}
    pairs |= {(_at_depth(column, len(columns), len(layers)), column) for column in alone}
    ordered = sorted(pairs)
    return Partners([row for row, _ in ordered], [column for _, column in ordered])


def _at_depth(place: int, count: int, other_count: int) -> int:
    """Return the place among ``other_count`` layers that is as deep as this place among ``count`` layers."""
    return round(place * (other_count - 1) / (count - 1)) if count > 1 else 0
