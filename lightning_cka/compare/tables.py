"""Results as CSV files, and as tables of text for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from math import isnan, nan
from pathlib import Path
from typing import Any

from lightning_cka.compare.difference import CKADifference
from lightning_cka.compare.flag_messages import flag_summary
from lightning_cka.compare.intervals import too_few_batches
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import moment_text
from lightning_cka.hsic.measure import CKA, measure_title
from lightning_cka.runtime.files import write_atomically

_CELL_COLUMNS = ("epoch", "step", "layer", "reference_layer")


def write_csv(results: Iterable[CKAResult], path: str | Path) -> None:
    """Write results to a CSV file in long format: one row per result and pair of layers, floats in full precision.

    The column of the values has the name of the measure; there is one for each measure of the results.

    Args:
        results: Results in the order of the rows.
        path: Path of the file. Missing folders are created.

    Raises:
        OSError: The file cannot be written.
    """
    found = list(results)
    measures = dict.fromkeys(result.measure for result in found) or (CKA.key,)
    columns = (*_CELL_COLUMNS, *measures, "standard_error", "paired")
    write_rows(columns, (row for result in found for row in result.to_rows()), path)


def write_rows(columns: Iterable[str], rows: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write rows to a CSV file, floats in full precision.

    Args:
        columns: Names of the columns.
        rows: Values by column, for each row.
        path: Path of the file. Missing folders are created.

    Raises:
        OSError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(Path(path), text.getvalue().encode())


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return lines of aligned columns: the first column to the left, the others to the right.

    Args:
        header: Titles of the columns.
        rows: One text per column for each row.
    """
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def result_table(result: CKAResult) -> str:
    """Return a table with one row per layer: its value with the paired layer and with the most similar layer.

    The column of the paired layer is omitted if no layers are paired, and for a model compared with itself.
    """
    pairs = {} if result.self_comparison else result.same_named_pairs()
    most_similar = [_most_similar(result, row) for row in range(len(result.layers))]
    title = measure_title(result.measure)
    paired = f"{title}, {'same name' if result.pairing is None else 'paired layer'}"
    columns = {
        "layer": result.layers,
        paired: [_value_with_error(result, pairs.get(name)) for name in result.layers],
        "most similar": [result.reference_layers[column] for _, column in most_similar],
        title: [_value_with_error(result, cell) for cell in most_similar],
        "flags": [flag_reasons(result, name) for name in result.layers],
    }
    if not pairs:
        del columns[paired]
    notes = [too_few_batches(result.effective_batches), *_bad_samples(result)]
    return "\n\n".join([_heading(result), table(columns, zip(*columns.values(), strict=True)), *filter(None, notes)])


def _bad_samples(result: CKAResult) -> list[str]:
    """Return lines below the table that name samples that are ``nan`` or infinite."""
    kind = result.diagnostics.sample_kind if result.diagnostics else "sample"
    flags = [flag for flag in result.flags if flag.reason == "bad_sample"]
    return flag_summary(flags, kind, measure_title(result.measure))


def difference_table(difference: CKADifference, level: float = 0.95) -> str:
    """Return a table with one row per layer: by how much its CKA with the layer that it is paired with differs.

    Args:
        difference: Difference of two results.
        level: Level of the intervals and of significance, in (0, 1).

    Raises:
        ValueError: No layers are paired, or the level is out of range.
    """
    pairs = difference.same_named_pairs()
    if not pairs:
        raise ValueError("both results have no pair of layers in common, and saved results keep errors for pairs only")
    (low, high), significant = difference.bounds(level), difference.tested_cells(level)
    rows = (
        (
            name,
            f"{float(difference.matrix[cell]):+.4f}",
            _format_error(float(difference.standard_error[cell])),
            _format_interval(float(low[cell]), float(high[cell])),
            "yes" if significant[cell] else "",
        )
        for name, cell in pairs.items()
    )
    mean = f"mean {difference.summary():+.4f} ± {difference.mean_standard_error:.4f}"
    lines = table(("layer", "difference", "standard error", f"{100 * level:g} % interval", "significant (Holm)"), rows)
    few = too_few_batches(difference.effective_batches)
    return "\n\n".join([f"{difference.value_title}, {difference.title}: {mean}", lines, *([few] if few else [])])


def _format_error(error: float) -> str:
    return "" if isnan(error) else f"{error:.4f}"


def _format_interval(low: float, high: float) -> str:
    return "" if isnan(low) else f"{low:+.4f} to {high:+.4f}"


def diagnostics_table(result: CKAResult) -> str:
    """Return a table with one row per layer of the model: its diagnostics and its flags."""
    layers = result.diagnostics.layers if result.diagnostics else {}
    rows = (
        (
            name,
            *(f"{value:.2f}" for value in (layer.effective_dimension, layer.trace_ratio, layer.hsic_ratio)),
            flag_reasons(result, name),
        )
        for name, layer in layers.items()
    )
    return table(("layer", "effective dimension", "trace ratio", "HSIC ratio", "flags"), rows)


def trajectory_table(results: Mapping[str, CKAResult]) -> str:
    """Return a table with one row per layer and one column per moment: CKA with the same layer at the last moment.

    Args:
        results: Results by layer, as `trajectories` returns them; at least one.
    """
    moments = next(iter(results.values())).layers
    rows = ((name, *map(_format_value, result.matrix[:, -1].tolist())) for name, result in results.items())
    return table(("layer", *moments), rows)


def _heading(result: CKAResult) -> str:
    """Return one line that says what was compared, and how."""
    title = ", ".join(filter(None, (result.model_name, moment_text(result.epoch, result.step))))
    mean = "mean" if result.mean_name == "mean" else "mean of all pairs"
    if result.pairing is not None and result.pairing.layers:
        mean = f"layers paired by {result.pairing.how}, mean"
    return (
        f"{title} and {result.reference_name}: {result.measure_label}, "
        f"{samples_text(result)}, {mean} {_format_value(result.summary())}"
    )


def samples_text(result: CKAResult) -> str:
    """Return how many samples and batches a result is of, in words; "" if that is not known."""
    if result.num_samples is None:
        return ""
    return f"{result.num_samples} samples in {result.num_batches} batch{'es' * (result.num_batches != 1)}"


def _most_similar(result: CKAResult, row: int) -> tuple[int, int]:
    """Return the cell with the highest CKA in a row. For a model compared with itself, leave out the diagonal."""
    values = result.matrix[row].clone()
    if result.self_comparison:
        values[row] = nan
    return row, int(values.nan_to_num(-2).argmax())  # CKA is at least -1.


def _value_with_error(result: CKAResult, cell: tuple[int, int] | None) -> str:
    """Return the value of a cell; "" for no cell. The standard error follows if it is known from enough batches."""
    if cell is None:
        return ""
    value = _format_value(float(result.matrix[cell]))
    error = nan if result.standard_error is None else float(result.standard_error[cell])
    return value if isnan(error) or too_few_batches(result.effective_batches) else f"{value} ± {error:.3f}"


def flag_reasons(result: CKAResult, name: str) -> str:
    """Return the reasons for which a layer is flagged, in the model or in the reference."""
    reasons = [
        flag.reason.replace("_", " ") + (" (reference)" if flag.of_reference else "") for flag in result.flags_of(name)
    ]
    return ", ".join(dict.fromkeys(reasons))


def _format_value(value: float) -> str:
    return f"{value:.3f}"
