"""The seed ceiling of a series, as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any

from lightning_cka.compare.result import CKAResult
from lightning_cka.decisions.ceiling import SeedCeiling, fitting_ceiling
from lightning_cka.view.blocks import LEVEL
from lightning_cka.view.packing import DECIMALS


def ceiling_content(ceilings: Iterable[SeedCeiling], results: Sequence[CKAResult]) -> dict[str, Any]:
    """Return ``{"ceiling": {"label", "layers"}}`` for the first ceiling that fits the results; empty if none does.

    "layers" has a list by name of the layer: the value, and the lower and the upper bound, or None without interval.

    Args:
        ceilings: Seed ceilings, such as one for each measure.
        results: Results of one reference and one measure; at least one.
    """
    ceiling = fitting_ceiling(ceilings, results[-1])
    if ceiling is None:
        return {}
    chance = "" if ceiling.chance is None else f", chance: {ceiling.chance:g}"
    columns = (ceiling.values, *ceiling.bounds(LEVEL))
    layers = {name: [_number(value) for value in row] for name, *row in zip(ceiling.layers, *columns, strict=True)}
    return {"ceiling": {"label": f"seed ceiling ({ceiling.num_seeds} seeds{chance})", "layers": layers}}


def _number(value: Any) -> float | None:
    return None if isnan(value) else round(float(value), DECIMALS)
