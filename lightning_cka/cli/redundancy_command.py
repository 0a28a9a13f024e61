"""The command ``redundancy``: which layers of a model are alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_cka.cli.output_files import check_ending, write_line
from lightning_cka.cli.sources import Kind, kind_of
from lightning_cka.compare.banks import compare_banks
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import bank_files, results_of_references
from lightning_cka.compare.tables import write_rows
from lightning_cka.decisions.redundancy import redundancy as find_redundancy
from lightning_cka.decisions.redundancy import redundancy_table
from lightning_cka.figures.pictures import FORMATS, write_figure
from lightning_cka.figures.redundant_layers import plot_redundancy
from lightning_cka.probe.bank import GramBank


def redundancy(options: Any) -> None:
    """Print which layers of a model are alike, and write it to a file on request.

    Raises:
        ValueError: There is no result of a model with itself and no bank, there are several, or a number is out of
            range.
    """
    output: Path | None = options.output
    if output is not None:
        check_ending(output, (*FORMATS, ".csv"))
    found = find_redundancy(_self_result(options.source), options.alike, options.level)
    if output is not None and output.suffix.lower() == ".csv":
        rows = found.to_rows()
        write_rows(rows[0] if rows else (), rows, output)
    elif output is not None:
        write_figure(plot_redundancy(found)[0], output)
    write_line(redundancy_table(found) + ("" if output is None else f"\n\n{output}"))


def _self_result(path: Path) -> CKAResult:
    """Return the result of a model with itself that a path has, or that its bank gives."""
    kind = kind_of(path)
    if kind is Kind.RESULT:
        return CKAResult.load(path)
    if kind is Kind.BANK:
        return _of_bank(path)
    if kind is not Kind.FOLDER:
        raise ValueError(f"{str(path)!r} is {kind.value}, but redundancy takes a result, a bank or the folder of a run")
    last = {place: CKAResult.load(files[-1]) for place, files in results_of_references(path)}
    found = {place: result for place, result in last.items() if result.self_comparison}
    if len(found) > 1:
        places = ", ".join(map(str, found))
        raise ValueError(f"{str(path)!r} has {len(found)} series of a model with itself: pass one of {places}")
    if found:
        return next(iter(found.values()))
    if banks := bank_files(path):
        return _of_bank(banks[-1])
    raise ValueError(
        f"{str(path)!r} has no results of a model with itself and no banks. CKAMonitor writes them with "
        'reference="self" or save_banks=True'
    )


def _of_bank(path: Path) -> CKAResult:
    bank = GramBank.load(path)
    return compare_banks(bank, bank)
