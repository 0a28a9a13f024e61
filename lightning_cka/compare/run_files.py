"""The names of a run's files: each tells the moment of training that the file belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_cka.compare.result import CKAResult

BANK_SUFFIX = ".safetensors"

INITIAL = "initial"
"""The name of the moment before the first training step, for banks."""

_DEFAULT_FOLDER = "cka"
"""Name of the folder that a monitor makes in the folder of its run."""

_EPOCH, _STEP = r"epoch=(\d+)-", r"step=(\d{6,})"


def moment(epoch: int | None, step: int | None) -> str:
    """Return the name of a moment of training, for file names.

    Args:
        epoch: The epoch. None: the name has the step only.
        step: The step. None: "validate", outside training.
    """
    if step is None:
        return "validate"
    return f"step={step:06d}" if epoch is None else f"epoch={epoch:03d}-step={step:06d}"


def parse_moment(name: str) -> tuple[int, int] | None:
    """Return the epoch and step of a name made by `moment`.

    Returns:
        Epoch and step. The epoch is -1 if the name has the step only; (-1, -1) for `INITIAL`. None for other names.
    """
    if name == INITIAL:
        return (-1, -1)
    found = re.fullmatch(rf"({_EPOCH})?{_STEP}", name)
    return (int(found[2] or -1), int(found[3])) if found else None


def find_moment(name: str) -> str:
    """Return the part of a file's name that `moment` made; empty if there is none."""
    found = re.search(rf"({_EPOCH})?{_STEP}(?=\.\w+$)", name)
    return found[0] if found else ""


def moment_order(epoch: int | None, step: int | None) -> tuple[int, int]:
    """Return what sorts moments of a run by time: first the step, then the epoch."""
    return (-1 if step is None else step, -1 if epoch is None else epoch)


def last_moment(results: Iterable[CKAResult]) -> tuple[int, int]:
    """Return epoch and step of the last of some results, as `parse_moment` does; (-1, -1) without results."""
    step, epoch = max((moment_order(result.epoch, result.step) for result in results), default=(-1, -1))
    return epoch, step


def is_of_training(result: CKAResult) -> bool:
    """Whether a result is of a moment of training. Those of ``trainer.validate()`` have neither epoch nor step."""
    return result.epoch is not None or result.step is not None


def last_of_training(results: Sequence[CKAResult], count: int = 1) -> list[CKAResult]:
    """Return the last results of training in order, at most ``count``; the time does not grow with all results."""
    return list(islice(filter(is_of_training, reversed(results)), count))[::-1]


def histories_of_training(results: Mapping[str, Iterable[CKAResult]]) -> dict[str, list[CKAResult]]:
    """Return the results of training by name, without names that have none."""
    found = {name: [each for each in history if is_of_training(each)] for name, history in results.items()}
    return {name: history for name, history in found.items() if history}


def is_start(result: CKAResult) -> bool:
    """Whether a result is of the moment before the first training step."""
    return result.epoch is None and result.step == 0


def moment_text(epoch: int | None, step: int | None) -> str:
    """Return words for a moment of training, as far as it is known, such as "epoch 3, step 124"."""
    known = (("epoch", epoch), ("step", step))
    return ", ".join(f"{word} {value}" for word, value in known if value is not None)


def short_moment_text(epoch: int | None, step: int | None) -> str:
    """Return the epoch in words, or the step if there is no epoch; empty if both are unknown."""
    return moment_text(epoch, step).split(", ")[0]


def bank_files(folder: Path) -> list[Path]:
    """Return the banks of a run in order of time, from its folder or from the folder ``banks`` in it."""
    return _in_order(folder.glob(f"*{BANK_SUFFIX}")) or _in_order((folder / "banks").glob(f"*{BANK_SUFFIX}"))


def result_files(folder: Path) -> list[Path]:
    """Return the results of one reference in order of time, from the folder of that reference."""
    return _in_order(folder.glob("*.json"))


def _in_order(paths: Iterable[Path]) -> list[Path]:
    moments = {path: parse_moment(path.stem) for path in paths}
    known = {path: epoch_and_step for path, epoch_and_step in moments.items() if epoch_and_step is not None}
    return sorted(known, key=lambda path: moment_order(*known[path]))


def results_of_references(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield the folder of each reference in a folder, and its result files in order of time.

    Folders ``earlier-1``, ``earlier-2``, ... inside are skipped, because they hold earlier runs.
    """
    folder = folder.resolve() if folder.name in ("", "..") else folder
    for place in (folder, *sorted(path for path in folder.rglob("*") if path.is_dir())):
        is_earlier_run = any(part.startswith("earlier-") for part in place.relative_to(folder).parts)
        if not is_earlier_run and (files := result_files(place)):
            yield place, files


def names_of_runs(folders: Sequence[Path]) -> list[str]:
    """Return names of folders without the parts that all of them share at the start and at the end."""
    parts = [folder.parts for folder in folders]
    if len(parts) == 1:
        return [folders[0].parent.name if folders[0].name == _DEFAULT_FOLDER else folders[0].name]
    shortest = min(map(len, parts))
    start = next((i for i in range(shortest) if len({each[i] for each in parts}) > 1), shortest)
    end = next((i for i in range(shortest - start) if len({each[-1 - i] for each in parts}) > 1), shortest - start)
    return ["/".join(each[start : len(each) - end]) or "." for each in parts]
