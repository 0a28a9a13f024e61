"""The command ``show``: a table of one result or of one bank."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cka.cli.ceilings import ceiling_of, ceiling_table
from lightning_cka.cli.output_files import check_ending, write_line
from lightning_cka.cli.sources import Kind, kind_of
from lightning_cka.compare.banks import compare_banks
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.tables import diagnostics_table, result_table
from lightning_cka.figures.heatmap import plot_cka
from lightning_cka.figures.pictures import FORMATS, write_figure
from lightning_cka.probe.bank import GramBank


def show(options: Any) -> None:
    """Print a table of a result or a bank, and draw the result's heatmap on request.

    Raises:
        ValueError: The file is neither, or a picture of a bank is requested.
    """
    path: Path = options.file
    kind = kind_of(path)
    if kind is Kind.RESULT:
        _show_result(path, options.output, options.ceiling)
    elif kind is not Kind.BANK:
        raise ValueError(f"{str(path)!r} is {kind.value}, but show takes a result (.json) or a bank (.safetensors)")
    elif options.output is not None:
        raise ValueError(
            "--output draws the heatmap of a result, but this is a bank: use the command compare, samples or spectrum"
        )
    elif options.ceiling:
        raise ValueError("--ceiling is for the values of a result, but this is a bank")
    else:
        _show_bank(path)


def _show_result(path: Path, output: Path | None, banks: Sequence[Path] | None) -> None:
    if output is not None:
        check_ending(output, FORMATS)
    result = CKAResult.load(path)
    ceiling = ceiling_of(banks, [result])
    if output is not None:
        write_figure(plot_cka(result)[0], output)
    parts = [result_table(result)]
    parts += [] if ceiling is None else [ceiling_table(ceiling, result)]
    parts += [] if output is None else [str(output)]
    write_line("\n\n".join(parts))


def _show_bank(path: Path) -> None:
    bank = GramBank.load(path)
    write_line(f"{bank.title}: {bank.num_samples} samples in {len(bank.batches)} batches, seed {bank.seed}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The table has a column of flags.
        result = compare_banks(bank, bank)
    write_line(diagnostics_table(result))
