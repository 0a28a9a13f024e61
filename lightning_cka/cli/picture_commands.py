"""The commands ``drift``, ``samples`` and ``spectrum``: one picture from the files of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_cka.cli.ceilings import ceiling_of
from lightning_cka.cli.label_files import labels_in
from lightning_cka.cli.output_files import check_ending, write_line
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import is_of_training, result_files, results_of_references
from lightning_cka.figures.drift import plot_drift
from lightning_cka.figures.pictures import FORMATS, write_figure
from lightning_cka.figures.samples import plot_samples
from lightning_cka.figures.spectra import plot_spectrum


def drift(options: Any) -> None:
    """Draw the layer-by-epoch map of one reference.

    Raises:
        ValueError: The folder has no results, or those of several references.
    """
    check_ending(options.output, FORMATS)
    files = _results_of_one_reference(options.folder)
    results = list(filter(is_of_training, map(CKAResult.load, files)))
    _write(plot_drift(results, ceiling=ceiling_of(options.ceiling, results[-1:]))[0], options.output)


def samples(options: Any) -> None:
    """Draw where samples lie in layers."""
    check_ending(options.output, FORMATS)
    figure, _ = plot_samples(
        options.bank,
        options.layer,
        None if options.labels is None else _numbers(labels_in(options.labels)),
        options.batch,
        options.epochs,
        marked=options.marked or (),
        exclude=options.exclude,
        across=options.across,
    )
    _write(figure, options.output)


def spectrum(options: Any) -> None:
    """Draw which part of a layer's variance each direction has."""
    check_ending(options.output, FORMATS)
    _write(plot_spectrum(options.bank, options.layers, exclude=options.exclude)[0], options.output)


def _numbers(labels: list[str]) -> list[int] | list[str]:
    """Return labels as integers if all of them are, because many integers get a continuous colour map."""
    return [int(label) for label in labels] if all(map(_is_integer, labels)) else labels


def _is_integer(label: str) -> bool:
    return label.strip().removeprefix("-").isdecimal()


def _results_of_one_reference(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}")
    if files := result_files(folder):
        return files
    found = dict(results_of_references(folder))
    if not found:
        raise ValueError(f"{str(folder)!r} has no results (.json), which CKAMonitor writes for each reference")
    if len(found) > 1:
        raise ValueError(
            f"{str(folder)!r} has the results of {len(found)} references: pass one of {', '.join(map(str, found))}"
        )
    return next(iter(found.values()))


def _write(figure: Any, path: Path) -> None:
    write_figure(figure, path)
    write_line(str(path))
