"""The command ``difference``: by how much CKA differs between two results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_cka.cli.output_files import check_ending, write_line
from lightning_cka.cli.side_names import name_runs
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.tables import difference_table, write_rows
from lightning_cka.figures.differences import plot_difference
from lightning_cka.figures.pictures import FORMATS, write_figure


def difference(options: Any) -> None:
    """Print by how much CKA differs between two results, and write it to a file on request."""
    output: Path | None = options.output
    if output is not None:
        check_ending(output, (*FORMATS, ".csv"))
    later, earlier = (CKAResult.load(path) for path in (options.later, options.earlier))
    names = (later.model_name, earlier.model_name)
    if later.measure_label == earlier.measure_label:  # Otherwise the measures tell the results apart.
        names = name_runs((options.later, options.earlier), names)
    found = replace(later, model_name=names[0]).difference(replace(earlier, model_name=names[1]))
    text = difference_table(found, options.level)
    if output is not None and output.suffix.lower() == ".csv":
        rows = found.to_rows(options.level)
        write_rows(rows[0], rows, output)
    elif output is not None:
        write_figure(plot_difference(found, level=options.level)[0], output)
    write_line(text if output is None else f"{text}\n\n{output}")
