"""The command ``compare``: CKA between two networks, from banks, folders of runs, or checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_cka.cli.bank_inputs import compare_bank_files
from lightning_cka.cli.checkpoint_inputs import compare_checkpoint_with_bank, compare_checkpoints
from lightning_cka.cli.output_files import check_ending, write_line
from lightning_cka.cli.result_inputs import advice_on_results
from lightning_cka.cli.sources import Kind, kind_of
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import short_moment_text
from lightning_cka.compare.tables import result_table, write_csv
from lightning_cka.figures.heatmap import plot_cka
from lightning_cka.figures.pictures import FORMATS, write_figure


def compare(options: Any) -> None:
    """Print the CKA between two networks, and write it to a file on request.

    Raises:
        ValueError: The two paths cannot be compared, or an option does not fit them.
        ChoiceNeededError: A path is the folder of a run, and no option chooses its bank.
    """
    output: Path | None = options.output
    if output is not None:
        check_ending(output, tuple(_WRITERS))
    results = _comparison(options)(options)
    for name, result in results.items():
        if output is not None:
            path = output if len(results) == 1 else output.with_name(f"{output.stem}-{name}{output.suffix}")
            _WRITERS[output.suffix.lower()](result, path)
        write_line(result_table(result) + ("" if output is None else f"\n\n{path}"))


def _comparison(options: Any) -> Callable[[Any], Mapping[str, CKAResult]]:
    """Return the function that compares what the two paths are.

    Raises:
        ValueError: There is none, because a path is a result.
    """
    paths = options.a, options.b
    kinds = {path: kind_of(path) for path in paths}
    if Kind.RESULT in kinds.values():
        raise advice_on_results(kinds)
    if Kind.CHECKPOINT not in kinds.values():
        return compare_bank_files
    return compare_checkpoints if set(kinds.values()) == {Kind.CHECKPOINT} else compare_checkpoint_with_bank


def _write_heatmap(result: CKAResult, path: Path) -> None:
    """Draw a heatmap whose axes have the epochs of both sides: they can be different, so none is the title."""
    if moment := short_moment_text(result.epoch, result.step):
        name = f"{result.model_name}, {moment}"
        result = replace(result, model_name=name, epoch=None, step=None)
    write_figure(plot_cka(result)[0], path)


_WRITERS: Mapping[str, Callable[[CKAResult, Path], object]] = {
    **dict.fromkeys(FORMATS, _write_heatmap),
    ".csv": lambda result, path: write_csv([result], path),
    ".json": lambda result, path: result.save(path),
}
"""How to write a result, by the suffix of the file."""
