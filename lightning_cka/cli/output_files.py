"""The endings of the file that ``--output`` names, and lines of standard output."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path


def check_ending(path: Path, endings: Collection[str]) -> None:
    """Check the ending of a file before anything is computed.

    Raises:
        ValueError: It is none of the endings, which are in lower case.
    """
    if path.suffix.lower() not in endings:
        raise ValueError(f"--output must end with one of {', '.join(endings)}, but got {str(path)!r}")


def write_line(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")
