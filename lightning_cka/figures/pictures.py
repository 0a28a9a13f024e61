"""Turn a figure into pixels, and write pixels to a PNG file."""

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


def render(figure: Figure) -> Pixels:
    """Return the figure as RGB pixels ``(height, width, 3)`` of type uint8."""
    canvas: Any = FigureCanvasAgg(figure)  # Its methods have no types.
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_picture(path: Path, pixels: Pixels) -> None:
    """Write a PNG file completely or not at all.

    Args:
        path: Path of the file. Missing folders are created.
        pixels: RGB pixels ``(height, width, 3)`` of type uint8.

    Raises:
        OSError: The file cannot be written.
    """
    write_atomically(path, png(pixels))


def png(pixels: Pixels) -> bytes:
    """Return the content of a PNG file with these RGB pixels."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
