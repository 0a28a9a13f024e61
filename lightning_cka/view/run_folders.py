"""Read the results of runs from their folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import names_of_runs, results_of_references

_JOURNAL = "history.jsonl"
"""A file that each run's folder has."""


class FoundRuns(NamedTuple):
    """What was read from folders.

    Attributes:
        runs: By name of the run and key of the reference: results in order of time.
        notes: One sentence for each file that could not be read.
    """

    runs: dict[str, dict[str, list[CKAResult]]]
    notes: list[str]


def read_runs(folders: Sequence[Path]) -> FoundRuns:
    """Read all results in folders. Files that are damaged are left out, with a note.

    Args:
        folders: Folders of runs, of one reference, or folders that contain such folders. Folders of earlier runs
            (``earlier-1``, ...) inside are left out.

    Raises:
        ValueError: A folder has no results.
        NotADirectoryError: There is no such folder.
    """
    notes: list[str] = []
    found: dict[Path, dict[str, list[CKAResult]]] = {}
    for folder in map(_resolved, folders):
        if not folder.is_dir():
            raise NotADirectoryError(f"there is no folder {str(folder)!r}; expected the dirpath of a CKAMonitor")
        references = dict(results_of_references(folder))
        if not references:
            raise ValueError(f"there are no results in {str(folder)!r}; expected the dirpath of a CKAMonitor")
        for place, files in references.items():
            run = _run_folder(place, folder)
            found.setdefault(run, {})[_key(place, run)] = _results(place, files, notes)
    return FoundRuns(dict(zip(names_of_runs(list(found)), found.values(), strict=True)), notes)


def _resolved(folder: Path) -> Path:
    return Path(os.path.abspath(folder))  # noqa: PTH100  # Path.resolve would follow links to other names.


def _run_folder(place: Path, folder: Path) -> Path:
    """Return the folder of a run: the nearest one with a list of the run's files, else the one that was given."""
    for parent in (place, *place.parents):
        if (parent / _JOURNAL).is_file():
            return parent
        if parent == folder:
            break
    return folder


def _key(place: Path, run: Path) -> str:
    return place.name if place == run else place.relative_to(run).as_posix()


def _results(place: Path, files: Sequence[Path], notes: list[str]) -> list[CKAResult]:
    results = []
    for file in files:
        try:
            results.append(CKAResult.load(file))
        except (ValueError, OSError) as error:
            notes.append(f"{place.name}: {error}")
    return results
