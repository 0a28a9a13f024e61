"""A note about files of older versions, which have no checksum."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info


def note_unchecked(kind: str, path: Path) -> None:
    """Log once per folder that its files have no checksum. A warning per file would be noise for a whole run.

    Args:
        kind: What the file is, such as "bank".
        path: The file.
    """
    _note_folder(kind, path.parent)


@lru_cache(maxsize=1024)
def _note_folder(kind: str, folder: Path) -> None:
    rank_zero_info(f"CKA: {kind}s in {folder} are of an older version, which wrote no checksum: damage is not noticed")
