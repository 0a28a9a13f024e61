"""The command ``matrix``: CKA of many models with each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_cka.cli.ceilings import bank_in, shows_progress
from lightning_cka.cli.output_files import check_ending, write_line
from lightning_cka.cli.run_banks import LAST
from lightning_cka.compare.intervals import too_few_batches
from lightning_cka.compare.tables import table, write_rows
from lightning_cka.decisions.compare_many import compare_many, names_of_banks
from lightning_cka.decisions.model_comparison import ModelComparison
from lightning_cka.figures.labels import elided
from lightning_cka.figures.models import plot_models
from lightning_cka.figures.pictures import FORMATS, write_figure
from lightning_cka.hsic.check_measures import OneMeasure
from lightning_cka.hsic.measure import CKA

_MOST_CHARACTERS = 20
"""Longest name of a model above a column."""


def matrix(options: Any) -> None:
    """Print the CKA of many models with each other, and write it to a file on request.

    Raises:
        ValueError: The banks cannot be compared, or there is no bank of the chosen moment.
    """
    output: Path | None = options.output
    if output is not None:
        check_ending(output, (*FORMATS, ".csv"))
    axis = "epoch" if options.step is None else "step"
    moment = options.epoch or options.step or LAST
    banks = [bank_in(path, axis, moment) for path in options.sources]
    for measure in options.measures:
        comparison = compare_many(
            banks,
            options.layers,
            measure=measure,
            **_of_cka(measure, options),
            names=options.names or names_of_banks(options.sources),
            exclude=options.exclude,
            progress_bar=shows_progress(),
        )
        write_line(matrix_table(comparison))
        if output is not None:
            path = output if len(options.measures) == 1 else output.with_stem(f"{output.stem}-{_key(measure)}")
            _write(comparison, path)
            write_line(f"\n{path}")


def _key(measure: OneMeasure) -> str:
    return measure if isinstance(measure, str) else measure.key


def _of_cka(measure: OneMeasure, options: Any) -> dict[str, Any]:
    """Return the arguments that only CKA has."""
    return {"kernel": options.kernel, "unbiased": options.unbiased} if _key(measure) == CKA.key else {}


def matrix_table(comparison: ModelComparison) -> str:
    """Return a table with one row and one column per model, and the largest standard error."""
    first, count = next(iter(comparison.by_layer.values())), len(comparison.by_layer)
    layers = f"mean of {count} layers" if count > 1 else f"layer {next(iter(comparison.by_layer))}"
    heading = f"{first.measure_label} of {len(comparison.names)} models, {layers}, {first.num_samples} samples"
    rows = (
        (name, *(f"{value:.3f}" for value in row))
        for name, row in zip(comparison.names, comparison.matrix.tolist(), strict=True)
    )
    lines = table(("model", *(elided(name, _MOST_CHARACTERS) for name in comparison.names)), rows)
    errors = f"standard errors over probe batches: at most {float(comparison.standard_error.nan_to_num(0.0).max()):.3f}"
    return "\n\n".join([heading, lines, too_few_batches(comparison.effective_batches) or errors])


def _write(comparison: ModelComparison, path: Path) -> None:
    if path.suffix.lower() == ".csv":
        rows = comparison.to_rows()
        write_rows(rows[0], rows, path)
    else:
        write_figure(plot_models(comparison)[0], path)
