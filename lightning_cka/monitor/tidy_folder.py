"""Before training, move files of earlier runs out of the run's folder, and add the restored files of this run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import BANK_SUFFIX, find_moment
from lightning_cka.monitor.journal import JOURNAL, to_lines
from lightning_cka.monitor.reference import LABELS, OUTPUT_ENDINGS, RANKS, REPORT, SAMPLES
from lightning_cka.monitor.run_folder import has_results, result_path
from lightning_cka.monitor.run_state import RunState
from lightning_cka.probe.bank import GramBank
from lightning_cka.runtime.files import remove_unfinished, set_aside


def tidy_folder(run: RunState, saved: Mapping[str, Any], live: GramBank | None) -> None:
    """Leave only this run's files in its folder. Files of other runs move to ``earlier-1``, ``earlier-2``, ...

    Rank 0 calls this, after results and banks were restored.

    Args:
        run: The run.
        saved: The value of `complete_state`; empty for a new run.
        live: The live model's bank; None if the run needs no banks.

    Raises:
        OSError: A file cannot be moved or written.
    """
    remove_unfinished(run.folder)
    banks = run.banks.usable_files(live)
    is_resumed = _is_resumed(run.folder, saved, banks.values())
    journal = _journal_to_keep(run, saved)
    own = OwnFiles(run.folder, run.results, banks.values(), journal, is_resumed=is_resumed)
    if moved := set_aside(run.folder, _names(run.folder), own.contains):
        rank_zero_info(f"CKA: files of earlier runs in {run.folder} were moved to {moved.name}")
    run.banks.collect(banks)
    for key, history in run.results.items():
        for result in history:
            if not (file := result_path(run.folder, key, result)).exists():
                result.save(file)
    _list_files(run, journal)


def _journal_to_keep(run: RunState, saved: Mapping[str, Any]) -> bytes | None:
    """Return the checkpoint's lines of the journal; None if some of its results are not restored."""
    before = sum(len(states) for states in saved.get("results", {}).values())
    is_whole = before == sum(map(len, run.results.values()))
    return saved.get("journal_content") if is_whole else None


def _list_files(run: RunState, journal: bytes | None) -> None:
    """Make the journal list all restored files, so that checkpoints need not contain them."""
    if not journal:
        entries = [{"bank": name, **record} for name, record in run.banks.records.items()]
        entries += [run.store.entry(key, result) for key, history in run.results.items() for result in history]
        journal = to_lines(entries)
    run.journal.replace(journal)
    run.store.release()
    run.banks.mark_listed()


class OwnFiles:
    """Tells which files in a folder belong to the run that starts.

    Args:
        folder: The run's folder.
        results: The restored results, by key.
        banks: Files of the restored banks.
        journal: Content of the journal of this run, if it is known.
        is_resumed: Whether the checkpoint's run wrote to this folder.
    """

    def __init__(
        self,
        folder: Path,
        results: Mapping[str, Sequence[CKAResult]],
        banks: Collection[Path],
        journal: bytes | None,
        *,
        is_resumed: bool,
    ) -> None:
        self._folder = folder
        self._banks = {path.resolve() for path in banks}
        self._journal = journal
        self._is_resumed = is_resumed
        files = {result_path(folder, key, result) for key, history in results.items() for result in history}
        self._moments = {(file.parent, file.stem) for file in files}

    def contains(self, file: Path) -> bool:
        """Whether a file belongs to this run.

        In a resumed run's folder, the name of a figure or result has a step. Such a file belongs to the
        run if there is a result of that moment. Files without a moment, for example tables, belong to the run.
        """
        if file.suffix == BANK_SUFFIX:
            return file.resolve() in self._banks
        if not self._is_resumed:
            return False
        if file.name == JOURNAL:
            return file.read_bytes() == self._journal
        moment = find_moment(file.name)
        if not moment or file.parent == self._folder:
            return True
        if file.parent == self._folder / SAMPLES:  # Its pictures belong to no reference.
            return any(name == moment for _, name in self._moments)
        return (file.parent, moment) in self._moments


def _is_resumed(folder: Path, saved: Mapping[str, Any], banks: Collection[Path]) -> bool:
    folder = folder.resolve()
    # The folder may have been moved or copied since the checkpoint; then the banks show that it is the same run.
    return saved.get("folder") == str(folder) or any(folder in path.resolve().parents for path in banks)


def _names(folder: Path) -> list[str]:
    """Return the names of files and folders that a monitor may have written. Files of the user are not among them."""
    references = [path.name for path in folder.glob("*") if has_results(path)]
    outputs = [name + ending for name in references for ending in OUTPUT_ENDINGS]
    # A user may have a folder called "samples", too.
    samples = [SAMPLES, f"{SAMPLES}-evolution.gif"] if (folder / SAMPLES / LABELS).exists() else []
    return [*outputs, "banks", "trajectory", *samples, RANKS, REPORT, JOURNAL]
