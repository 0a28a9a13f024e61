"""`Journal`: a file that lists the results and banks of a run, so that checkpoints do not grow with their number."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_cka.runtime.files import digest, write_atomically

JOURNAL = "history.jsonl"
"""Name of the file in the run's folder."""


class Journal:
    """Appends one JSON line for each result and bank, with the hash of its file.

    A checkpoint keeps the length and the hash of the lines so far. Later lines do not change them, so each checkpoint
    of a run finds its own lines again. Only rank 0 writes.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        self._content = bytearray()
        self._hash = hashlib.blake2b(digest_size=16)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes without the hash, which cannot be pickled."""
        return {name: value for name, value in vars(self).items() if name != "_hash"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the attributes, and compute the hash."""
        vars(self).update(state)
        self._hash = hashlib.blake2b(self._content, digest_size=16)

    @property
    def content(self) -> bytes:
        """Return the lines so far."""
        return bytes(self._content)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line.

        Raises:
            OSError: The file cannot be written. The line is not added then.
        """
        line = _line(entry)
        if _size(self._path) == len(self._content):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        else:  # An earlier line was written in part, or the file was removed.
            write_atomically(self._path, self.content + line)
        self._content += line
        self._hash.update(line)

    def replace(self, content: bytes) -> None:
        """Replace all lines.

        Raises:
            OSError: The file cannot be written.
        """
        if content != (self._path.read_bytes() if self._path.is_file() else b""):
            write_atomically(self._path, content)
        self._content = bytearray(content)
        self._hash = hashlib.blake2b(content, digest_size=16)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; an empty dict if there are no lines."""
        return {"size": len(self._content), "digest": self._hash.copy().hexdigest()} if self._content else {}


def to_lines(entries: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the content of a journal with these entries."""
    return b"".join(map(_line, entries))


def find_content(folders: Iterable[Path], state: Mapping[str, Any]) -> bytes | None:
    """Return the lines that a checkpoint refers to.

    Args:
        folders: Folders that may have the journal.
        state: The value of `Journal.state`.

    Returns:
        The lines; None if no folder has a journal that begins with them.
    """
    for folder in folders:
        try:
            with (folder / JOURNAL).open("rb") as file:
                content = file.read(int(state["size"]))
        except OSError:
            continue
        if digest(content) == state["digest"]:
            return content
    return None


def entries_of(content: bytes) -> list[dict[str, Any]]:
    """Return the entries of a journal's lines."""
    return [json.loads(line) for line in content.splitlines()]


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
