"""The heatmaps of a run as an animated GIF."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from lightning_cka.compare.result import CKAResult
from lightning_cka.figures.heatmap import plot_cka
from lightning_cka.figures.layout import SCREEN_DPI
from lightning_cka.figures.pictures import render
from lightning_cka.figures.png_encoder import Pixels
from lightning_cka.runtime.files import write_atomically
from lightning_cka.runtime.spacing import spread_evenly

MAX_FRAMES = 60
"""Default maximum number of frames."""


def write_animation(
    results: Sequence[CKAResult],
    path: str | Path,
    *,
    pictures: Sequence[Path] = (),
    seconds: float = 0.4,
    max_frames: int = MAX_FRAMES,
) -> None:
    """Write the heatmaps of a run as an animated GIF, with colours from 0 to 1 and the epoch in the title.

    Args:
        results: Results of one reference, in order; at least one.
        path: Path of the GIF file. Missing folders are created.
        pictures: One path per result, of a PNG file of its heatmap. Missing files are drawn. If empty, all heatmaps
            are drawn.
        seconds: Duration of a frame, from 0.01 to 100. The last frame is shown four times as long.
        max_frames: Maximum number of frames, at least 2. Of more results, evenly spaced ones are shown, with the first
            and the last.

    Raises:
        ValueError: There is no result, or ``seconds`` is out of range.
        OSError: The file cannot be written.
    """
    if not results:
        raise ValueError("there is no result to animate: pass at least one")
    places = frame_places(len(results), max_frames)
    files = pictures or [Path()] * len(results)
    write_gif((_heatmap(results[place], files[place]) for place in places), path, seconds)


def frame_places(count: int, max_frames: int) -> list[int]:
    """Return the indices of the moments that get a frame: at most ``max_frames``, evenly spaced, with both ends."""
    return spread_evenly(range(count), max(2, max_frames))


def write_gif(pictures: Iterable[Pixels], path: str | Path, seconds: float) -> None:
    """Write pictures as an animated GIF.

    Args:
        pictures: At least one picture, in order.
        path: Path of the file. Missing folders are created.
        seconds: Duration of a frame, from 0.01 to 100. The last frame is shown four times as long.

    Raises:
        ValueError: ``seconds`` is out of range.
        OSError: The file cannot be written.
    """
    if not 0.01 <= seconds <= 100:
        raise ValueError(f"seconds must be from 0.01 to 100, but got {seconds:g}")
    frames = _padded(list(pictures))
    durations = [round(1000 * seconds)] * (len(frames) - 1) + [round(4000 * seconds)]
    content = io.BytesIO()
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, disposal=2)
    write_atomically(Path(path), content.getvalue())


def _heatmap(result: CKAResult, path: Path) -> Pixels:
    """Return the heatmap from its file, with the resolution of a screen, or draw it if there is no such file."""
    if not path.is_file():
        return render(plot_cka(result)[0])
    with Image.open(path) as image:
        dpi, _ = image.info.get("dpi", (SCREEN_DPI, SCREEN_DPI))  # Files of older versions do not say it.
        share = min(1.0, SCREEN_DPI / dpi)
        picture = image.convert("RGB")
        if share < 1:
            picture = picture.resize((round(share * image.width), round(share * image.height)), Resampling.LANCZOS)
        return np.asarray(picture)


def _padded(pictures: Sequence[Pixels]) -> list[Image.Image]:
    """Return images of one size, with the background at the right and at the bottom of smaller pictures.

    Heatmaps of a run differ in height, because only some of them have notes on flags.
    """
    height, width = (max(picture.shape[side] for picture in pictures) for side in (0, 1))
    images = []
    for picture in pictures:
        frame = np.full((height, width, 3), picture[-1, -1], dtype=np.uint8)
        frame[: picture.shape[0], : picture.shape[1]] = picture
        images.append(Image.fromarray(frame))
    return images
