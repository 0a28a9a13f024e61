"""Write results and pictures to the file that ``--output`` names, in the format of its ending."""

from __future__ import annotations

import io
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cka.runtime.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".pdf", ".svg")
"""Endings of the files of pictures."""

_DPI = 200
"""Dots per inch of PNG files, and of the cells in PDF and SVG files."""


def check_ending(path: Path, endings: Collection[str]) -> None:
    """Check the ending of a file before anything is computed.

    Raises:
        ValueError: It is none of the endings, which are in lower case.
    """
    if path.suffix.lower() not in endings:
        raise ValueError(f"--output must end with one of {', '.join(endings)}, but got {str(path)!r}")


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, PDF or SVG, completely or not at all.

    Args:
        figure: The figure.
        path: Path of the file, with one of the endings `PICTURES`. Missing folders are created.

    Raises:
        OSError: The file cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.lower()[1:], dpi=_DPI)
    write_atomically(path, content.getvalue())


def write_line(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")
