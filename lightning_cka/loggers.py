"""Bring figures to the loggers of a Trainer, and to files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from lightning_cka.canvas import Pixels, render
from lightning_cka.files import moment
from lightning_cka.heatmap import plot_cka
from lightning_cka.namespaces import class_names
from lightning_cka.result import CKAResult
from lightning_cka.trends import plot_drift

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def log_figures(
    loggers: Sequence[Any], key_prefix: str, folder: Path, results: Sequence[CKAResult], step: int
) -> list[str]:
    """Draw the latest result and the history; write both to PNG files and log them.

    Args:
        loggers: of the Trainer.
        key_prefix: of the images' keys, ``heatmap`` and ``drift``.
        folder: of the files, made if need be. The heatmap's name has epoch and step, the drift map is
            written anew each time.
        results: of one reference, in order; the last one is new. Without an epoch it is of a model that was
            validated outside training, and the drift map has no place for it.
        step: of the images, on the axis of Lightning's own scalars.

    Returns:
        Class names of the loggers that cannot take images.

    Raises:
        OSError: a file cannot be written.
    """
    last = results[-1]
    trained = last.epoch is not None
    figures = {"heatmap": (plot_cka(last)[0], folder / heatmap_file(last))}
    if trained and not last.within and last.same_named():
        figures["drift"] = (
            plot_drift([result for result in results if result.epoch is not None])[0],
            folder / "drift.png",
        )
    return log_and_save(loggers, key_prefix, figures, step)


def heatmap_file(result: CKAResult) -> str:
    """The name of a heatmap's file."""
    return f"heatmap-{moment(result.epoch, result.step)}.png"


def log_and_save(
    loggers: Iterable[Any], key_prefix: str, figures: Mapping[str, tuple[Figure, Path]], step: int
) -> list[str]:
    """Log figures, and write them to PNG files, whose folders are made if need be.

    Args:
        loggers: of the Trainer.
        key_prefix: of the images' keys.
        figures: by the rest of the key, with their files.
        step: on the axis of Lightning's own scalars.

    Returns:
        Class names of the loggers that cannot take images.

    Raises:
        OSError: a file cannot be written.
    """
    unable: list[str] = []
    for key, (figure, path) in figures.items():
        pixels = render(figure)
        unable = log_image(loggers, key_prefix + key, pixels, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return unable


def log_image(loggers: Iterable[Any], key: str, pixels: Pixels, step: int) -> list[str]:
    """Log an image to each logger that can take one.

    Args:
        loggers: of the Trainer; told by class name, so that either Lightning namespace will do.
        key: the image's name.
        pixels: ``(height, width, 3)`` uint8.
        step: on the axis of Lightning's own scalars.

    Returns:
        Class names of the loggers that cannot take images.
    """
    unable = []
    for logger in loggers:
        names = class_names(logger)
        send = next((_SENDERS[name] for name in names if name in _SENDERS), None)
        if send is None:
            unable.append(names[0])
        else:
            send(logger, key, pixels, step)
    return unable


def _to_tensorboard(logger: Any, key: str, pixels: Pixels, step: int) -> None:
    logger.experiment.add_image(key, pixels, step, dataformats="HWC")


def _to_wandb(logger: Any, key: str, pixels: Pixels, step: int) -> None:
    # The logger records the step as trainer/global_step; W&B's own step must stay its own.
    logger.log_image(key, [Image.fromarray(pixels)], step=step)


_SENDERS: dict[str, Callable[[Any, str, Pixels, int], None]] = {
    "TensorBoardLogger": _to_tensorboard,
    "WandbLogger": _to_wandb,
}


def log_video(loggers: Iterable[Any], key: str, path: Path, step: int) -> None:
    """Log an animated GIF to each logger that can take one: that of W&B.

    Args:
        loggers: of the Trainer; told by class name.
        key: the animation's name.
        path: of the file.
        step: on the axis of Lightning's own scalars.
    """
    for logger in loggers:
        if "WandbLogger" in class_names(logger):
            logger.log_video(key, [str(path)], step=step, format=["gif"])


def log_text(loggers: Iterable[Any], key: str, text: str, step: int) -> None:
    """Log a text to each logger that can take one.

    Args:
        loggers: of the Trainer; told by class name.
        key: the text's name.
        text: what is logged.
        step: on the axis of Lightning's own scalars.
    """
    for logger in loggers:
        names = class_names(logger)
        if "TensorBoardLogger" in names:
            logger.experiment.add_text(key, text, step)
        elif "WandbLogger" in names:
            logger.log_text(key, columns=["warning"], data=[[text]], step=step)
