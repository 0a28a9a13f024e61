"""`ResultStore`: write a run's results to files, and keep in checkpoints only those that could not be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_cka.compare.result import CKAResult
from lightning_cka.monitor.journal import Journal
from lightning_cka.monitor.output_errors import OutputErrors
from lightning_cka.monitor.run_folder import result_path
from lightning_cka.runtime.files import digest


class ResultStore:
    """The files of a run's results. Only rank 0 uses it.

    Args:
        folder: The run's folder.
        journal: Lists the files.
        errors: Turns errors of writing into warnings.
    """

    def __init__(self, folder: Path, journal: Journal, errors: OutputErrors) -> None:
        self._folder = folder
        self._journal = journal
        self._errors = errors
        self._unwritten: dict[str, list[dict[str, Any]]] = {}

    def save(self, key: str, result: CKAResult) -> None:
        """Write a result to its file and list it. If that fails, warn, and keep the result for checkpoints.

        Args:
            key: The key of `Settings.key`.
            result: A result with epoch and step.
        """

        def write() -> None:
            result.save(result_path(self._folder, key, result))
            self._journal.append(self.entry(key, result))

        if not self._errors.attempt(write):
            self._unwritten.setdefault(key, []).append(result.state())

    def hold(self, results: Mapping[str, Sequence[CKAResult]]) -> None:
        """Keep results for checkpoints until `release`: nobody knows yet whether their files can be written."""
        self._unwritten = {key: [result.state() for result in history] for key, history in results.items()}

    def release(self) -> None:
        """Keep no results for checkpoints any more: all of them are in listed files."""
        self._unwritten = {}

    def entry(self, key: str, result: CKAResult) -> dict[str, Any]:
        """Return the journal's entry of a result whose file exists.

        Raises:
            OSError: The file cannot be read.
        """
        path = result_path(self._folder, key, result)
        return {
            "result": key,
            "epoch": result.epoch,
            "step": result.step,
            "file": path.relative_to(self._folder).as_posix(),
            "digest": digest(path.read_bytes()),
        }

    def unwritten(self) -> dict[str, list[dict[str, Any]]]:
        """Return the states of the results that are in no file, by key."""
        return {key: list(states) for key, states in self._unwritten.items()}
