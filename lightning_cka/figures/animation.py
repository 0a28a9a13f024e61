"""A run in motion."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lightning_cka.compare.result import CKAResult
from lightning_cka.figures.canvas import Pixels, render
from lightning_cka.figures.heatmap import plot_cka
from lightning_cka.runtime.files import write_atomically

MAX_FRAMES = 60


def write_animation(
    results: Sequence[CKAResult],
    path: str | Path,
    *,
    pictures: Sequence[Path] = (),
    seconds: float = 0.4,
    max_frames: int = MAX_FRAMES,
) -> None:
    """Write the heatmaps of a run as an animated GIF, on a fixed colour range, with the epoch in the title.

    Args:
        results: of one reference, in order; at least one.
        path: of the file.
        pictures: files of the results' heatmaps, if they were drawn before; missing ones are drawn now.
        seconds: that each frame is shown, up to 100; the last one is shown four times as long.
        max_frames: of more results, evenly spaced ones are shown, the first and the last one always.

    Raises:
        ValueError: there is no result, or frames cannot be shown for that long.
        OSError: the file cannot be written.
    """
    if not results:
        raise ValueError("there is no result to animate")
    if not 0.01 <= seconds <= 100:
        raise ValueError(f"a frame can be shown for 0.01 to 100 seconds, but not for {seconds:g}")
    count = min(len(results), max(2, max_frames))
    places = np.linspace(0, len(results) - 1, count).round().astype(int)
    drawn = pictures or [Path()] * len(results)
    frames = [_picture(results[place], drawn[place]) for place in places]
    # Notes on flags come and go: frames of one size, with the same upper edge.
    height, width = (max(frame.shape[side] for frame in frames) for side in (0, 1))
    images = []
    for frame in frames:
        image = np.full((height, width, 3), 255, dtype=np.uint8)
        image[: frame.shape[0], : frame.shape[1]] = frame
        images.append(Image.fromarray(image))
    durations = [round(1000 * seconds)] * (count - 1) + [round(4000 * seconds)]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, disposal=2)
    write_atomically(Path(path), buffer.getvalue())


def _picture(result: CKAResult, path: Path) -> Pixels:
    if not path.is_file():
        return render(plot_cka(result)[0])
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
