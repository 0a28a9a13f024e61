"""The commands ``convergence`` and ``freeze``: since when each layer of a run has converged, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cka.cli.output_files import check_ending, write_line
from lightning_cka.compare.tables import write_rows
from lightning_cka.decisions.convergence import convergence as find_convergence
from lightning_cka.decisions.layer_convergence import Convergence, LayerConvergence
from lightning_cka.decisions.would_freeze import FrozenLayer, WouldFreeze, would_freeze
from lightning_cka.figures.convergence_maps import plot_convergence
from lightning_cka.figures.pictures import FORMATS, write_figure


def convergence(options: Any) -> None:
    """Print since when each layer has converged, and write it to a file on request.

    Raises:
        ValueError: The folder has nothing to judge by, or a number is out of range.
        FileNotFoundError: There is no such folder.
    """
    _check(options)
    found = find_convergence(options.folder, tolerance=options.tolerance, level=options.level)
    _write(found, LayerConvergence._fields, options.output)


def freeze(options: Any) -> None:
    """Print which layers `FreezeConverged` would have frozen, and write it to a file on request.

    Raises:
        ValueError: The run has too few banks, or a number is out of range.
        FileNotFoundError: There is no such folder.
    """
    _check(options)
    found = would_freeze(options.folder, options.tolerance, options.patience, options.level)
    _write(found, FrozenLayer._fields, options.output)


def _check(options: Any) -> None:
    if options.output is not None:
        check_ending(options.output, (*FORMATS, ".csv"))


def _write(found: Convergence | WouldFreeze, columns: Sequence[str], output: Path | None) -> None:
    if output is not None and output.suffix.lower() == ".csv":
        write_rows(columns, found.to_rows(), output)
    elif output is not None:
        write_figure(plot_convergence(found)[0], output)
    write_line(repr(found) + ("" if output is None else f"\n\n{output}"))
