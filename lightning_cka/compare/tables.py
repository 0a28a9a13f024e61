"""Results as CSV files, and as text tables for the command line."""

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
    """Write results in long format: one row for each pair of layers. Floats keep all digits.

    Args:
        results: Results, in the order of the rows.
        path: Path of the file.

    Raises:
        OSError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for result in results:
        writer.writerows(result.to_rows())
    write_atomically(Path(path), text.getvalue().encode())


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return text in aligned columns: the first is aligned to the left, the others to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


DIAGNOSTIC_COLUMNS = ("effective dimension", "trace ratio", "HSIC ratio")


def layer_row(result: CKAResult, name: str, layer: LayerDiagnostics) -> tuple[str, ...]:
    """Return the name, the `DIAGNOSTIC_COLUMNS` and the flags of one layer."""
    values = (layer.effective_dimension, layer.trace_ratio, layer.hsic_ratio)
    return (name, *(f"{value:.2f}" for value in values), _flags(result, name))


def result_table(result: CKAResult) -> str:
    """Return a table of each layer's CKA with the layer of the same name, and with the most similar layer."""
    pairs = {} if result.self_comparison else result.same_named_pairs()
    rows: list[tuple[str, ...]] = []
    for row, name in enumerate(result.layers):
        same = _with_error(result, *pairs[name]) if name in pairs else ""
        column = _most_similar(result, row)
        similar = (result.reference_layers[column], _with_error(result, row, column))
        rows.append((name, same, *similar, _flags(result, name)))
    lines: list[tuple[str, ...]] = [("layer", "CKA, same name", "most similar", "CKA", "flags"), *rows]
    if not pairs:
        lines = [(name, *rest) for name, _, *rest in lines]
    header, *body = lines
    return f"{_title(result)}\n\n{table(header, body)}"


def _title(result: CKAResult) -> str:
    moment = "" if result.epoch is None else f", epoch {result.epoch}, step {result.step}"
    estimator = "" if result.unbiased else ", biased"
    return (
        f"{result.model_name}{moment} and {result.reference_name}: {result.kernel} CKA{estimator}, "
        f"{result.num_samples} samples in {result.num_batches} batches, mean {format_cka(result.mean())}"
    )


def _most_similar(result: CKAResult, row: int) -> int:
    """Return the column with the largest CKA; within one model, of the other layers."""
    values = result.matrix[row].clone()
    if result.self_comparison:
        values[row] = float("nan")
    return int(values.nan_to_num(-2).argmax())  # CKA is at least -1.


def _with_error(result: CKAResult, row: int, column: int) -> str:
    value = format_cka(float(result.matrix[row, column]))
    error = float("nan") if result.standard_error is None else float(result.standard_error[row, column])
    return value if isnan(error) else f"{value} ± {error:.3f}"


def _flags(result: CKAResult, name: str) -> str:
    reasons = [
        flag.reason.replace("_", " ") + (" (reference)" if flag.of_reference else "")
        for flag in result.flags
        if flag.layer == name
    ]
    return ", ".join(dict.fromkeys(reasons))


def format_cka(value: float) -> str:
    """Return a CKA value with three decimals."""
    return f"{value:.3f}"
