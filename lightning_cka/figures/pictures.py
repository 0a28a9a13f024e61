"""Turn a figure into pixels, and write pixels and figures to files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lightning_cka.runtime.files import write_atomically

Pixels = NDArray[np.uint8]

FORMATS = (".png", ".pdf", ".svg")
"""Endings of the files that `write_figure` writes."""

PRINT_DPI = 200
"""Dots per inch of PNG files, and of the cells in PDF and SVG files."""


def render(figure: Figure, dpi: float | None = None) -> Pixels:
    """Return the figure as RGB pixels ``(height, width, 3)`` of type uint8.

    Args:
        figure: The figure.
        dpi: Dots per inch, which the figure keeps. None: those of the figure.
    """
    if dpi is not None:
        figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)  # Its methods have no types.
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, PDF or SVG, completely or not at all.

    Args:
        figure: The figure.
        path: Path of the file, with one of the endings `FORMATS`. Missing folders are created.

    Raises:
        OSError: The file cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.lower()[1:], dpi=PRINT_DPI)
    write_atomically(path, content.getvalue())


def write_picture(path: Path, pixels: Pixels) -> None:
    """Write a PNG file completely or not at all.

    Args:
        path: Path of the file. Missing folders are created.
        pixels: RGB pixels ``(height, width, 3)`` of type uint8, with `PRINT_DPI` dots per inch.

    Raises:
        OSError: The file cannot be written.
    """
    write_atomically(path, png(pixels, PRINT_DPI))


def png(pixels: Pixels, dpi: float | None = None) -> bytes:
    """Return the content of a PNG file with these RGB pixels. Their dots per inch say how large they are in print."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", **({} if dpi is None else {"dpi": (dpi, dpi)}))
    return content.getvalue()
