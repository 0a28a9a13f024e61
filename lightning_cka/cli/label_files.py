"""Read the labels of samples from a text file."""

from __future__ import annotations

from pathlib import Path


def labels_in(path: Path) -> list[str]:
    """Return the labels in a text file, one in each line. Line i, from 0, is the label of sample number i.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is no text.
    """
    return path.read_text().splitlines()
