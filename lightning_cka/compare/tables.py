"""Results as CSV files and as text tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from math import isnan
from pathlib import Path

from lightning_cka.compare.diagnostics import LayerDiagnostics
from lightning_cka.compare.result import CKAResult
from lightning_cka.runtime.files import write_atomically

_COLUMNS = ("epoch", "step", "layer", "reference_layer", "cka", "standard_error")


def write_csv(results: Iterable[CKAResult], path: str | Path) -> None:
    """Write results in long format: a row for each pair of layers, floats in full.

    Args:
        results: in order.
        path: of the file.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for result in results:
        writer.writerows(result.to_rows())
    write_atomically(Path(path), text.getvalue().encode())


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Aligned columns of text, the first to the left and the others to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


DIAGNOSTIC_COLUMNS = ("effective dimension", "trace ratio", "HSIC ratio")


def layer_row(result: CKAResult, name: str, layer: LayerDiagnostics) -> tuple[str, ...]:
    values = (layer.effective_dimension, layer.trace_ratio, layer.hsic_ratio)
    return (name, *(f"{value:.2f}" for value in values), _flags(result, name))


def result_table(result: CKAResult) -> str:
    """Of each layer, the CKA with its namesake, or else with the layer that is most alike."""
    moment = "" if result.epoch is None else f", epoch {result.epoch}, step {result.step}"
    estimator = "" if result.unbiased else ", biased"
    head = (
        f"{result.model_name}{moment} and {result.reference_name}: {result.kernel} CKA{estimator}, "
        f"{result.num_samples} samples in {result.num_batches} batches, mean {format_value(result.mean())}"
    )
    pairs = {} if result.self_comparison else result.same_named_pairs()
    rows = []
    for row, name in enumerate(result.layers):
        values = result.matrix[row].clone()
        if result.self_comparison:
            values[row] = float("nan")
        most = int(values.nan_to_num(-2).argmax())
        _, own = pairs.get(name, (row, None))
        own_value = "" if own is None else _with_error(result, row, own)
        flags = _flags(result, name)
        rows.append((name, own_value, result.reference_layers[most], _with_error(result, row, most), flags))
    lines = [("layer", "CKA with namesake", "most alike", "CKA", "flags"), *rows]
    columns = range(5) if pairs else (0, 2, 3, 4)
    header, *body = [[line[column] for column in columns] for line in lines]
    return f"{head}\n\n{table(header, body)}"


def _with_error(result: CKAResult, row: int, column: int) -> str:
    value = format_value(float(result.matrix[row, column]))
    error = float("nan") if result.standard_error is None else float(result.standard_error[row, column])
    return value if isnan(error) else f"{value} ± {error:.3f}"


def _flags(result: CKAResult, name: str) -> str:
    reasons = [
        flag.reason.replace("_", " ") + (" (reference)" if flag.of_reference else "")
        for flag in result.flags
        if flag.layer == name
    ]
    return ", ".join(dict.fromkeys(reasons))


def format_value(value: float) -> str:
    return f"{value:.3f}"
