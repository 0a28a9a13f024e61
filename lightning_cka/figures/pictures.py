"""Turn a figure into pixels, and write pixels and figures to files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lightning_cka.figures.png_encoder import Pixels, PngEncoder
from lightning_cka.runtime.files import write_atomically

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
    return rgb_pixels(canvas)


def rgb_pixels(drawn: Any) -> Pixels:
    """Return a copy of the pixels of a canvas or a renderer of Agg, without their alpha values."""
    with_alpha = np.asarray(drawn.buffer_rgba())
    height, width, _ = with_alpha.shape
    image = Image.frombuffer("RGBA", (width, height), with_alpha, "raw", "RGBA", 0, 1)
    return np.asarray(image.convert("RGB"))  # Several times as fast as a slice of the array.


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


def png(pixels: Pixels, dpi: float | None = None) -> bytes:
    """Return the content of a PNG file with these RGB pixels. Their dots per inch say how large they are in print."""
    return PngEncoder(dpi).encode(pixels)


def pixels_of(content: bytes) -> Pixels:
    """Return the RGB pixels of the content of a PNG file."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))
