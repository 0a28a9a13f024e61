"""Where a run's files are, and how they come there: whole, or not at all."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path

BANK_SUFFIX = ".safetensors"
INITIAL = "initial"
"""The moment before the first step, among those that `moment` names."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is never seen half written, whatever happens meanwhile; its folder is made if need be.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def digest(content: bytes) -> str:
    """Hash of a file's content, to know it again."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def moment(epoch: int | None, step: int | None) -> str:
    """A moment of training, in file names; of a model that was validated outside training, it has none."""
    return "validate" if epoch is None or step is None else f"epoch={epoch:03d}-step={step:06d}"


def parse_moment(name: str) -> tuple[int, int] | None:
    """Epoch and step of a name that `moment` made, (-1, -1) for `INITIAL`; None for other names."""
    if name == INITIAL:
        return (-1, -1)
    found = re.fullmatch(r"epoch=(\d+)-step=(\d+)", name)
    return (int(found[1]), int(found[2])) if found else None


def bank_files(folder: Path) -> list[Path]:
    """The banks of a run in order of time, from its folder or from the folder ``banks`` in it."""
    return _in_order(folder.glob(f"*{BANK_SUFFIX}")) or _in_order((folder / "banks").glob(f"*{BANK_SUFFIX}"))


def result_files(folder: Path) -> list[Path]:
    """The results of one reference in order of time, from the folder of that reference."""
    return _in_order(folder.glob("*.json"))


def _in_order(paths: Iterable[Path]) -> list[Path]:
    moments = {path: parse_moment(path.stem) for path in paths}
    known = {path: when for path, when in moments.items() if when is not None}
    return sorted(known, key=lambda path: known[path])


def set_aside(folder: Path, names: Iterable[str], keep: Callable[[Path], bool]) -> Path | None:
    """Move what an earlier run left to a folder ``earlier-1``, ``earlier-2``, ... inside ``folder``.

    Args:
        folder: of the runs.
        names: of files and folders in ``folder``; of folders, the files in them are moved.
        keep: whether a file stays where it is.

    Returns:
        Where to; None if there was nothing to move.

    Raises:
        OSError: a file cannot be moved.
    """
    places = [folder / name for name in names]
    files = {file for place in places for file in ([*place.rglob("*")] if place.is_dir() else [place])}
    moving = sorted(file for file in files if file.is_file() and not keep(file))
    if not moving:
        return None
    target = next(place for number in count(1) if not (place := folder / f"earlier-{number}").exists())
    for file in moving:
        place = target / file.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
    return target
