"""The command ``convergence``: since when each layer of a run has converged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_cka.cli.output_files import check_ending, write_line
from lightning_cka.compare.tables import write_rows
from lightning_cka.decisions.convergence import convergence as find_convergence
from lightning_cka.decisions.layer_convergence import LayerConvergence, convergence_table
from lightning_cka.figures.convergence_maps import plot_convergence
from lightning_cka.figures.pictures import FORMATS, write_figure


def convergence(options: Any) -> None:
    """Print since when each layer has converged, and write it to a file on request.

    Raises:
        ValueError: The folder has nothing to judge by, or a number is out of range.
        FileNotFoundError: There is no such folder.
    """
    output: Path | None = options.output
    if output is not None:
        check_ending(output, (*FORMATS, ".csv"))
    found = find_convergence(options.folder, tolerance=options.tolerance, level=options.level)
    if output is not None and output.suffix.lower() == ".csv":
        write_rows(LayerConvergence._fields, found.to_rows(), output)
    elif output is not None:
        write_figure(plot_convergence(found)[0], output)
    write_line(convergence_table(found) + ("" if output is None else f"\n\n{output}"))
