"""Write files whole or not at all, and move old ones aside."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path


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
