"""The values of a `CKAResult` in long format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from lightning_cka.compare.result import CKAResult


def result_rows(result: CKAResult) -> list[dict[str, Any]]:
    """Return one row for each pair of layers; see `CKAResult.to_rows`."""
    paired = result.paired().layers
    errors = torch.full_like(result.matrix, torch.nan) if result.standard_error is None else result.standard_error
    return [
        {
            "epoch": result.epoch,
            "step": result.step,
            "layer": layer,
            "reference_layer": other,
            result.measure: value,
            "standard_error": error,
            "paired": paired.get(layer) == other,
        }
        for layer, values, layer_errors in zip(result.layers, result.matrix.tolist(), errors.tolist(), strict=True)
        for other, value, error in zip(result.reference_layers, values, layer_errors, strict=True)
    ]
