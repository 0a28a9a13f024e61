"""The seed ceiling of a series, as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any

from lightning_cka.compare.result import CKAResult
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.view.blocks import LEVEL
from lightning_cka.view.packing import DECIMALS


def ceiling_content(ceilings: Iterable[SeedCeiling], results: Sequence[CKAResult]) -> dict[str, Any]:
    """Return ``{"ceiling": {"label", "layers"}}`` for the first ceiling that fits the results; empty if none does.

    "layers" has a list by name of the layer: the value, and the lower and the upper bound, or None without interval.

    Args:
        ceilings: Seed ceilings, such as one for each measure.
        results: Results of one reference and one measure; at least one.
    """
    if results[-1].self_comparison:
        return {}
    for ceiling in ceilings:
        try:
            ceiling.check_fits(results[-1])
        except ValueError:  # It is of another measure, or of another probe set.
            continue
        chance = "" if ceiling.chance is None else f", chance: {ceiling.chance:g}"
        columns = (ceiling.values, *ceiling.bounds(LEVEL))
        layers = {name: [_number(value) for value in row] for name, *row in zip(ceiling.layers, *columns, strict=True)}
        return {"ceiling": {"label": f"seed ceiling ({ceiling.num_seeds} seeds{chance})", "layers": layers}}
    return {}


def _number(value: Any) -> float | None:
    return None if isnan(value) else round(float(value), DECIMALS)
