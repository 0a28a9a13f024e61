"""The results and banks of a finished run, read from its folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import bank_files, histories_of_training, results_of_references

_MOVING = re.compile(r"previous(:\d+)?(, restarted .*)?")
"""Names of references that move with the model: the state of one or several comparisons ago."""


class RunResults(NamedTuple):
    """What a run has left."""

    results: dict[str, list[CKAResult]]
    """Results of training in order, by the name of the reference; with several measures, by both names."""
    banks: list[Path]
    """Banks in order of time."""


def read_run(folder: str | Path) -> RunResults:
    """Read all results of a run, and find its banks.

    Args:
        folder: The ``dirpath`` of a CKAMonitor, or the folder of one of its references.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A result cannot be read, or the folder has neither results nor banks.
    """
    given = str(folder)
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder {given!r}")
    folder = Path(folder).resolve()  # The current folder gets a name and a parent.
    found = {}
    for place, files in results_of_references(folder):
        name = place.relative_to(folder).as_posix() if place != folder else folder.name
        found[name] = map(CKAResult.load, files)
    results = histories_of_training(found)
    banks = bank_files(folder) or bank_files(folder.parent / "banks") if results or bank_files(folder) else []
    if not results and not banks:
        raise ValueError(f"{given!r} has no results (.json) and no banks, which CKAMonitor writes")
    return RunResults(results, banks)


def fixed_references(results: Mapping[str, Sequence[CKAResult]]) -> dict[str, list[CKAResult]]:
    """Return the results of training with references that do not move: not of the model with itself or its past."""
    return {
        name: history
        for name, history in histories_of_training(results).items()
        if not history[-1].self_comparison and not _MOVING.fullmatch(history[-1].reference_name)
    }
