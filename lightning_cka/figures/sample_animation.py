"""`animate_samples`: how the samples of a probe batch move in a layer during training, as an animated GIF."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cka.compare.sample_maps import SampleMaps, sample_maps
from lightning_cka.compare.sample_marks import SampleMarks
from lightning_cka.figures.animation import MAX_FRAMES, frame_places, write_gif
from lightning_cka.figures.pictures import render
from lightning_cka.figures.png_encoder import Pixels
from lightning_cka.figures.samples import axis_limits, draw_sample_maps

if TYPE_CHECKING:
    from lightning_cka.compare.bank_series import BankSource
    from lightning_cka.compare.result import CKAResult
    from lightning_cka.probe.layers import Layers
    from lightning_cka.probe.sample_labels import Labels
    from lightning_cka.probe.sample_selection import Exclude


def animate_samples(
    banks: str | Path | Sequence[BankSource],
    layer: Layers,
    path: str | Path,
    labels: Labels | None = None,
    batch: int | None = None,
    epochs: Sequence[int | str] | None = None,
    *,
    result: CKAResult | None = None,
    marked: Iterable[int] = (),
    exclude: Exclude = None,
    seconds: float = 0.4,
    max_frames: int = MAX_FRAMES,
) -> None:
    """Write an animated GIF of `plot_samples`, with a frame for each moment of training.

    Each picture is rotated or flipped to fit the next one (orthogonal Procrustes), so that samples move, but axes do
    not change places. All frames have the same limits.

    Args:
        banks: Banks of one network on one probe set, in order of time; their files; or the folder that
            `CKAMonitor(save_banks=True)` wrote.
        layer: As in `plot_samples`; a panel for each layer.
        path: Path of the GIF file. Missing folders are created.
        labels: As in `plot_samples`.
        batch: As in `plot_samples`.
        epochs: As in `plot_samples`. None: all banks.
        result: As in `plot_samples`.
        marked: As in `plot_samples`.
        exclude: As in `plot_samples`.
        seconds: Duration of a frame, from 0.01 to 100. The last frame is shown four times as long.
        max_frames: Maximum number of frames, at least 2. Of more moments, evenly spaced ones are shown.

    Raises:
        ValueError: As `plot_samples`, or ``seconds`` is out of range.
        TypeError: As `plot_samples`.
        FileNotFoundError: A file or the folder does not exist.
        OSError: The GIF cannot be written.
    """
    marks = SampleMarks(marked, () if result is None else (result,))
    write_sample_animation(
        banks,
        layer,
        path,
        labels,
        marks,
        batch=batch,
        epochs=epochs,
        exclude=exclude,
        seconds=seconds,
        max_frames=max_frames,
    )


def write_sample_animation(
    banks: str | Path | Sequence[BankSource],
    layer: Layers,
    path: str | Path,
    labels: Labels | None,
    marks: SampleMarks,
    *,
    batch: int | None = None,
    epochs: Sequence[int | str] | None = None,
    exclude: Exclude = None,
    seconds: float = 0.4,
    max_frames: int = MAX_FRAMES,
) -> None:
    """Write an animation as `animate_samples` does, with marks from several results."""
    maps = sample_maps(
        banks, layer, batch=batch, epochs=epochs, max_moments=max(2, max_frames), marks=marks, exclude=exclude
    )
    write_gif(_frames(maps, labels, max_frames), path, seconds)


def _frames(maps: SampleMaps, labels: Labels | None, max_frames: int) -> Iterator[Pixels]:
    limits = axis_limits(maps)
    for place in frame_places(maps.num_moments, max_frames):
        yield render(draw_sample_maps(maps.at(place), labels, limits=limits)[0])
