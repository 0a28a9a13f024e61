"""The command ``rank``: the effective rank of each layer over epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_cka.cli.output_files import check_ending, write_line
from lightning_cka.cli.run_banks import RunBanks
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import results_of_references
from lightning_cka.compare.tables import write_rows
from lightning_cka.decisions.rank_history import RankHistory, rank_table
from lightning_cka.decisions.ranks_of_run import rank_history
from lightning_cka.figures.pictures import FORMATS, write_figure
from lightning_cka.figures.ranks import plot_ranks


def rank(options: Any) -> None:
    """Print the effective rank of each layer and what it has lost, and write the history to a file on request.

    Raises:
        ValueError: There are neither banks nor results with ranks, or a number is out of range.
    """
    output: Path | None = options.output
    if output is not None:
        check_ending(output, (*FORMATS, ".csv"))
    history = _history(options)
    text = rank_table(history, options.rank_loss, options.level)
    if output is not None and output.suffix.lower() == ".csv":
        rows = history.to_rows(options.level)
        write_rows(rows[0], rows, output)
    elif output is not None:
        write_figure(plot_ranks(history, rank_loss=options.rank_loss, level=options.level)[0], output)
    write_line(text + ("" if output is None else f"\n\n{output}"))


def _history(options: Any) -> RankHistory:
    """Return the history that the results of a run have, or that follows from banks."""
    path: Path = options.source
    results = _results_with_ranks(path) if path.is_dir() else []
    if results and options.layers is None and options.exclude is None:
        return rank_history(results)
    source = RunBanks.in_folder(path).files[0].parent if path.is_dir() else path
    return rank_history(source, options.layers, exclude=options.exclude)


def _results_with_ranks(folder: Path) -> list[CKAResult]:
    """Return the results of the first reference whose last result has ranks; none if there is no such reference."""
    for _, files in results_of_references(folder):
        if CKAResult.load(files[-1]).ranks is not None:
            return list(map(CKAResult.load, files))
    return []
