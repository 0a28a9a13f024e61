"""Find the results and banks that a checkpoint refers to, on disk."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import moment_order, parse_moment, result_files
from lightning_cka.monitor.journal import JOURNAL, entries_of, find_content
from lightning_cka.runtime.files import digest
from lightning_cka.runtime.text import shortened

MAX_NAMED = 5
"""Number of missing results that a warning names."""


def complete_state(
    saved: Mapping[str, Any], folder: Path, keys: Collection[str], trainer: Trainer
) -> tuple[dict[str, Any], list[str]]:
    """Add to a checkpoint's state the results and banks that it refers to.

    Rank 0 reads the files, and all processes get them. Every process must call this.

    Args:
        saved: The value of `RunState.state_dict`. Older versions kept all results in it.
        folder: The run's folder. The results may also be in the checkpoint's folder, or in ``earlier-1``, ...
        keys: Keys of the results to read.
        trainer: The Trainer.

    Returns:
        The state with all results and all records of banks, and warnings about files that are missing.
    """
    if not saved.get("journal"):
        return dict(saved), []
    found = _complete(saved, folder, keys) if trainer.is_global_zero else ({}, [])
    return trainer.strategy.broadcast(found)


def renamed_messages(saved: Mapping[str, Any], keys: Collection[str]) -> list[str]:
    """Return a warning if a checkpoint's histories have other names than the references now; else nothing."""
    before = saved.get("kinds", {})
    gone, new = [key for key in before if key not in keys], [key for key in keys if key not in before]
    if not gone or not new:
        return []
    problem = f"the checkpoint has no history of {shortened(new)}, but of {shortened(gone)}"
    hint = f"reference={{{gone[0].split('/')[0]!r}: ...}} gives it the earlier name"
    return [f"{problem}. A reference with another name begins a new history; {hint}"]


def _complete(saved: Mapping[str, Any], folder: Path, keys: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    folders = _folders(folder, Path(saved["folder"]))
    content = find_content(folders, saved["journal"])
    messages = []
    if content is None:
        messages.append(
            f"{JOURNAL}, the list of the checkpoint's results, is missing in {folder} or was changed: all results up "
            "to the checkpoint's step that are in the folder are used"
        )
        entries = _unlisted(folders, keys, tuple(saved["last"]))
    else:
        entries = entries_of(content)
    results = {key: list(states) for key, states in saved.get("results", {}).items()}
    missing = []
    for entry in entries:
        if entry.get("result") not in keys:
            continue
        if (result := _read(folders, entry)) is None:
            missing.append(f"'{entry['result']}' of epoch {entry['epoch']}, step {entry['step']}")
        else:
            results.setdefault(entry["result"], []).append(result.state())
    if missing:
        messages.append(
            f"{len(missing)} results of the checkpoint are missing or were changed, and the history goes on without "
            f"them: {'; '.join(missing[:MAX_NAMED])}{'; ...' if len(missing) > MAX_NAMED else ''}"
        )
    for states in results.values():
        states.sort(key=lambda state: moment_order(state["epoch"], state["step"]))
    complete = {**saved, "results": results, "banks": _banks(entries) | dict(saved.get("banks", {}))}
    if content is not None and not missing:
        complete["journal_content"] = content
    return complete, messages


def _folders(folder: Path, before: Path) -> list[Path]:
    """Return the folders that may have a file of the checkpoint's run, without duplicates."""
    roots = [folder.resolve(), before.resolve()]
    aside = [path for root in roots for path in sorted(root.glob("earlier-*"))]
    return list(dict.fromkeys([*roots, *aside]))


def _read(folders: Iterable[Path], entry: Mapping[str, Any]) -> CKAResult | None:
    """Return the result of a journal's entry; None if no folder has its file unchanged."""
    for folder in folders:
        path = (folder / entry["file"]).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            continue
        try:
            if entry.get("digest") in (None, digest(path.read_bytes())):
                return CKAResult.load(path)
        except (OSError, ValueError):
            continue
    return None


def _banks(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the records of the listed banks that were not removed later, by moment."""
    banks: dict[str, dict[str, str]] = {}
    for entry in entries:
        if "bank" in entry:
            banks.pop(entry["bank"], None)
        if "path" in entry:
            banks[entry["bank"]] = {"path": entry["path"], "digest": entry["digest"]}
    return banks


def _unlisted(folders: Iterable[Path], keys: Collection[str], last: tuple[int, int]) -> list[dict[str, Any]]:
    """Return entries, without hashes, of the results in the folders up to an epoch and step."""
    found: dict[tuple[str, tuple[int, int]], dict[str, Any]] = {}
    for folder in folders:
        for key in keys:
            for path in result_files(folder / key):
                when = parse_moment(path.stem)
                if when is not None and moment_order(*when) <= moment_order(*last):
                    file = path.relative_to(folder).as_posix()
                    found.setdefault((key, when), {"result": key, "epoch": when[0], "step": when[1], "file": file})
    return list(found.values())
