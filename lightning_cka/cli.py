"""The command line ``lightning-cka``: compare banks and show results from disk, without a model or a GPU."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_cka.cli_arguments import build_parser
from lightning_cka.compare.banks import compare_banks
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import BANK_SUFFIX, result_files
from lightning_cka.compare.tables import (
    diagnostics_table,
    difference_table,
    result_table,
    trajectory_table,
    write_csv,
    write_rows,
)
from lightning_cka.compare.trajectory import trajectories
from lightning_cka.figures.animation import write_animation
from lightning_cka.figures.differences import plot_difference
from lightning_cka.figures.heatmap import plot_cka
from lightning_cka.figures.pictures import render, write_picture
from lightning_cka.hsic.measure import measure_title
from lightning_cka.monitor.logged_figures import trajectory_figures
from lightning_cka.probe.bank import GramBank
from lightning_cka.view.page import write_page
from lightning_cka.view.payload import view_payload
from lightning_cka.view.run_folders import read_runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Arguments of the command line. None takes `sys.argv`.

    Returns:
        The exit status 0.

    Raises:
        SystemExit: The status is 2 for bad input, with one line on standard error, and 2 without arguments, with the
            help. It is 0 after ``--help`` and ``--version``.
    """
    parser = build_parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.exit(2, parser.format_help())
    options = parser.parse_args(arguments)
    try:
        with _warnings_as_lines():
            _COMMANDS[options.command](options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader closed the pipe early, as `head` does. Without this, Python's own flush at exit would fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        parser.error(" ".join(str(error).split()))
    return 0


def _compare(options: Any) -> None:
    """Print the CKA between two banks, and write it to a file on request."""
    output: Path | None = options.output
    if output is not None and output.suffix not in _WRITERS:
        raise ValueError(f"--output must end with one of {', '.join(_WRITERS)}, but got {str(output)!r}")
    results = compare_banks(
        options.a,
        options.b,
        layers=options.layers,
        reference_layers=options.reference_layers,
        measures=options.measures,
        kernel=options.kernel,
        unbiased=not options.biased,
        strict=not options.loose,
        exclude=options.exclude,
        groups=None if options.groups is None else _labels(options.groups),
    )
    for name, result in results.items():
        if output is not None:
            path = output if len(results) == 1 else output.with_name(f"{output.stem}-{name}{output.suffix}")
            _WRITERS[output.suffix](result, path)
        _write_line(result_table(result) + ("" if output is None else f"\n\n{path}"))


def _labels(path: Path) -> list[str]:
    """Return the labels in a text file, one in each line. Line i, from 0, is the label of sample number i."""
    return path.read_text().splitlines()


_DPI = 200
"""Dots per inch of PNG files, and of the cells in PDF and SVG files."""


def _write_heatmap(result: CKAResult, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plot_cka(result)[0].savefig(path, dpi=_DPI)


_WRITERS: Mapping[str, Callable[[CKAResult, Path], object]] = {
    ".png": _write_heatmap,
    ".pdf": _write_heatmap,
    ".svg": _write_heatmap,
    ".csv": lambda result, path: write_csv([result], path),
    ".json": lambda result, path: result.save(path),
}
"""How to write a result, by the suffix of the file."""


def _difference(options: Any) -> None:
    """Print by how much CKA differs between two results, and write it to a file on request."""
    output: Path | None = options.output
    if output is not None and output.suffix not in (".png", ".csv"):
        raise ValueError(f"--output must end with .png or .csv, but got {str(output)!r}")
    later, earlier = (CKAResult.load(path) for path in (options.later, options.earlier))
    difference = later.difference(earlier)
    text = difference_table(difference, options.level)
    if output is not None and output.suffix == ".csv":
        rows = difference.to_rows(options.level)
        write_rows(rows[0], rows, output)
    elif output is not None:
        write_picture(output, render(plot_difference(difference, level=options.level)[0]))
    _write_line(text if output is None else f"{text}\n\n{output}")


def _trajectory(options: Any) -> None:
    """Draw the trajectories of a run, and print the CKA with the last moment."""
    by_measure = trajectories(
        options.folder,
        options.layers,
        measures=options.measures,
        kernel=options.kernel,
        unbiased=not options.biased,
    )
    folder = options.output or options.folder / "trajectory"
    for name, results in by_measure.items():
        output = folder if len(by_measure) == 1 else folder / name
        for draw, path in trajectory_figures(output, results).values():
            write_picture(path, render(draw()))
        title = measure_title(next(iter(results.values())).measure)
        _write_line(f"{title} of each layer with the same layer at the last moment:\n")
        _write_line(trajectory_table(results))
        _write_line(f"\nFigures: {output}")


def _animate(options: Any) -> None:
    """Write one animation per reference, and print the paths."""
    animations = _animations(options.sources)
    if options.output is not None:
        if len(animations) > 1:
            raise ValueError(
                f"--output names one animation, but there are {len(animations)}: pass the folder of one reference"
            )
        if options.output.suffix != ".gif":
            raise ValueError(f"--output must end with .gif, but got {str(options.output)!r}")
        animations = dict.fromkeys([options.output], *animations.values())
    for path, files in animations.items():
        write_animation([CKAResult.load(file) for file in files], path, seconds=options.seconds)
        _write_line(str(path))


def _animations(sources: Sequence[Path]) -> dict[Path, list[Path]]:
    """Return the result files of each animation, by its default path.

    Args:
        sources: Folders, or result files of one reference.
    """
    if not all(source.is_dir() for source in sources):
        return {sources[0].with_name("evolution.gif"): list(sources)}
    animations = {path: files for folder in sources for path, files in _animations_in(folder)}
    if not animations:
        raise ValueError(f"there are no results in {', '.join(map(str, sources))}")
    return animations


def _animations_in(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield the default path of an animation and its result files, for each reference in a folder.

    Folders ``earlier-1``, ``earlier-2``, ... inside are skipped, because they hold earlier runs.
    """
    folder = folder.resolve() if folder.name in ("", "..") else folder
    for place in (folder, *sorted(path for path in folder.rglob("*") if path.is_dir())):
        is_earlier_run = any(part.startswith("earlier-") for part in place.relative_to(folder).parts)
        if not is_earlier_run and (files := result_files(place)):
            yield place.with_name(f"{place.name}-evolution.gif"), files


def _show(options: Any) -> None:
    """Print a table of a result or a bank."""
    path: Path = options.file
    if path.suffix != BANK_SUFFIX:
        _write_line(result_table(CKAResult.load(path)))
        return
    bank = GramBank.load(path)
    _write_line(f"{bank.title}: {bank.num_samples} samples in {len(bank.batches)} batches, seed {bank.seed}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The table has a column of flags.
        result = compare_banks(bank, bank)
    _write_line(diagnostics_table(result))


def _report(options: Any) -> None:
    """Write one page that shows the runs in folders, and print its path."""
    runs, notes = read_runs(options.folders)
    for note in notes:
        warnings.warn(note, stacklevel=1)
    path = options.output or (options.folders[0] if len(options.folders) == 1 else Path()) / "report.html"
    write_page(path, view_payload(runs, title=f"CKA of {', '.join(runs)}", notes=notes))
    _write_line(str(path))


_COMMANDS: Mapping[str, Callable[[Any], None]] = {
    "compare": _compare,
    "difference": _difference,
    "trajectory": _trajectory,
    "animate": _animate,
    "show": _show,
    "report": _report,
}


def _write_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show each warning as one line, without the file and the line of code that caused it."""

    def show(message: Warning | str, *_args: Any, **_kwargs: Any) -> None:
        sys.stderr.write(f"lightning-cka: warning: {message}\n")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


if __name__ == "__main__":
    sys.exit(main())
