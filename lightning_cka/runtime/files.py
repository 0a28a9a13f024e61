"""Write files atomically, hash them, and move old files aside."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO

from lightning_cka.runtime.processes import is_running


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that no reader sees it half written, even if the process is killed.

    The folder is created if it does not exist.

    Args:
        path: Path of the file.
        content: The content, or a function that writes it to the open file.

    Raises:
        OSError: The file cannot be written. An existing file keeps its old content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove temporary files of `write_atomically` that killed processes left in a folder and its subfolders.

    Files of processes that run are kept, except those of this process: it must not write to the folder meanwhile.

    Raises:
        OSError: A file cannot be removed.
    """
    for path in folder.rglob(".*.tmp"):
        found = re.fullmatch(r"\..+\.(\d+)\.tmp", path.name)
        if found and (int(found[1]) == os.getpid() or is_running(int(found[1])) is False):
            path.unlink(missing_ok=True)


def digest(content: bytes) -> str:
    """Return a hash that identifies a file's content, 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Return the `digest` of a file's content, without reading the whole file into memory.

    Raises:
        OSError: The file cannot be read.
    """
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def set_aside(folder: Path, names: Iterable[str], keep: Callable[[Path], bool]) -> Path | None:
    """Move files of an earlier run to a new folder ``earlier-1``, ``earlier-2``, ... inside ``folder``.

    Args:
        folder: Folder of the run.
        names: Names of files and folders in ``folder``. All files inside these folders are moved.
        keep: Returns whether a file stays where it is.

    Returns:
        The new folder; None if there was nothing to move.

    Raises:
        OSError: A file cannot be moved.
    """
    moving = sorted(file for file in _files_in(folder / name for name in names) if not keep(file))
    if not moving:
        return None
    target = next(path for number in count(1) if not (path := folder / f"earlier-{number}").exists())
    for file in moving:
        destination = target / file.relative_to(folder)
        destination.parent.mkdir(parents=True, exist_ok=True)
        file.replace(destination)
    return target


def _files_in(paths: Iterable[Path]) -> set[Path]:
    """Return the existing files among paths, and the files inside the folders among them."""
    candidates = chain.from_iterable(path.rglob("*") if path.is_dir() else (path,) for path in paths)
    return {file for file in candidates if file.is_file()}
