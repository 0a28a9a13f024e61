"""The command ``summary``: one table of a run, as at the end of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_cka.cli.ceilings import ceilings_of_measures
from lightning_cka.cli.output_files import check_ending, write_line
from lightning_cka.compare.tables import write_rows
from lightning_cka.decisions.run_results import fixed_references, read_run
from lightning_cka.decisions.summary import run_summary
from lightning_cka.runtime.files import write_atomically


def summary(options: Any) -> None:
    """Print the summary of a run, and write it to a file on request.

    Raises:
        ValueError: The folder has no results, or a number is out of range.
        FileNotFoundError: There is no such folder.
    """
    output: Path | None = options.output
    if output is not None:
        check_ending(output, (".md", ".csv"))
    run = read_run(options.folder)
    found = run_summary(
        run.results,
        run.banks,
        fixed_references(run.results),
        tolerance=options.tolerance,
        level=options.level,
        ceilings=ceilings_of_measures(options.ceiling, list(run.results.values())),
    )
    if output is not None and output.suffix.lower() == ".csv":
        write_rows(("layer", *found.header), found.to_rows(), output)
    elif output is not None:
        write_atomically(output, f"{found.markdown(None)}\n".encode())
    write_line(found.text(None if options.all else options.folder) + ("" if output is None else f"\n\n{output}"))
