"""Bring figures to the loggers of a Trainer, and to files."""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from lightning_cka.canvas import Pixels, render
from lightning_cka.files import digest, moment, write_atomically
from lightning_cka.heatmap import plot_cka
from lightning_cka.namespaces import class_names
from lightning_cka.result import CKAResult
from lightning_cka.trends import plot_drift

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from matplotlib.figure import Figure

    Figures = Mapping[str, tuple[Callable[[], Figure], Path]]
    """By the last part of its key, what draws a figure, and its file."""


class Outlet:
    """Where figures, animations and texts go: to the loggers of a Trainer, and to files.

    The first process is alone in that, and training can go on without: what fails is warned of, and all else is
    served. Figures are drawn in a thread of their own, which takes longer than the comparison; loggers, which may not
    like threads, get them from whoever calls `deliver`.

    Args:
        loggers: of the Trainer; told by class name, so that either Lightning namespace will do.
        folder: of the files, for messages.
        warn: called with what there is to be warned of, maybe with the same again.
    """

    def __init__(self, loggers: Sequence[Any], folder: Path, warn: Callable[[str], None]) -> None:
        self._loggers = loggers
        self._folder = folder
        self._warn = warn
        self._failures: set[tuple[Any, ...]] = set()
        self._artist: ThreadPoolExecutor | None = None
        self._drawn: deque[tuple[str, int, Future[_Drawn]]] = deque()

    def attempt(self, act: Callable[[], object], failure: str = "CKA figures or files could not be written") -> None:
        """Do what may fail; if it does, warn of that, and go on."""
        try:
            act()
        except Exception as error:  # noqa: BLE001  # Foreign loggers, matplotlib, file systems: anything may come.
            self.warn_of(error, failure)

    def warn_of(self, error: Exception, failure: str) -> None:
        """Warn of an error, unless one of its kind has made the same fail before."""
        kind = (failure, type(error), getattr(error, "errno", None))
        if kind not in self._failures:
            self._failures.add(kind)
            cause = (str(error).splitlines() or [""])[0][:300]
            self._warn(f"{failure}, training goes on: {type(error).__name__}: {cause}; the folder is {self._folder}")

    def figures(self, key_prefix: str, figures: Figures, step: int) -> None:
        """Have figures drawn and written to their files; `deliver` brings them to the loggers.

        Args:
            key_prefix: of the images' keys.
            figures: what to draw.
            step: on the axis of Lightning's own scalars.
        """
        if self._artist is None:
            self._artist = ThreadPoolExecutor(1, "cka-figures")
        for key, (draw, path) in figures.items():
            self._drawn.append((key_prefix + key, step, self._artist.submit(_draw, draw, path)))

    def deliver(self, *, wait: bool) -> None:
        """Log the figures that are drawn by now; with ``wait``, all of them, and let the thread go."""
        while self._drawn and (wait or self._drawn[0][2].done()):
            self.attempt(partial(self._deliver, *self._drawn.popleft()))
        if wait and self._artist is not None:
            self._artist.shutdown()
            self._artist = None

    def _deliver(self, key: str, step: int, drawn: Future[_Drawn]) -> None:
        pixels, error = drawn.result()
        if unable := self.log("image", key, pixels, step):
            self._warn(f"{', '.join(unable)} cannot take images: the CKA figures are in {self._folder}")
        if error is not None:
            raise error

    def log(self, kind: str, key: str, value: Any, step: int) -> list[str]:
        """Bring something to each logger that can take it.

        Args:
            kind: "image", of pixels; "video", of the path of a GIF; "text".
            key: its name.
            value: what is logged.
            step: on the axis of Lightning's own scalars.

        Returns:
            Class names of the loggers that cannot take such things.
        """
        unable = []
        for logger in self._loggers:
            names = class_names(logger)
            send = next((_SENDERS[kind, name] for name in names if (kind, name) in _SENDERS), None)
            if send is None and kind == "image" and callable(getattr(logger, "log_image", None)):
                send = _image_to_wandb  # Loggers of other people that have it have it as that one does.
            if send is None:
                unable.append(names[0])
            else:
                self.attempt(partial(send, logger, key, value, step), f"{names[0]} could not take the CKA {kind}s")
        return unable


class _Drawn(NamedTuple):
    pixels: Pixels
    error: OSError | None
    """Why they could not be written to their file."""


def _draw(draw: Callable[[], Figure], path: Path) -> _Drawn:
    pixels = render(draw())
    try:
        write_picture(path, pixels)
    except OSError as error:
        return _Drawn(pixels, error)
    return _Drawn(pixels, None)


def _image_to_tensorboard(logger: Any, key: str, pixels: Pixels, step: int) -> None:
    logger.experiment.add_image(key, pixels, step, dataformats="HWC")


def _image_to_wandb(logger: Any, key: str, pixels: Pixels, step: int) -> None:
    # The logger records the step as trainer/global_step; W&B's own step must stay its own.
    logger.log_image(key, [Image.fromarray(pixels)], step=step)


def _image_to_mlflow(logger: Any, key: str, pixels: Pixels, step: int) -> None:
    logger.experiment.log_image(logger.run_id, pixels, f"{_artifact(key)}/step={step:06d}.png")


def _text_to_tensorboard(logger: Any, key: str, text: str, step: int) -> None:
    logger.experiment.add_text(key, text, step)


def _text_to_wandb(logger: Any, key: str, text: str, step: int) -> None:
    logger.log_text(key, columns=["warning"], data=[[text]], step=step)


def _text_to_mlflow(logger: Any, key: str, text: str, step: int) -> None:
    # There may be several of a step: each has a file of its own.
    name = f"step={step:06d}-{digest(text.encode())[:8]}.txt"
    logger.experiment.log_text(logger.run_id, text, f"{_artifact(key)}/{name}")


def _video_to_wandb(logger: Any, key: str, path: Path, step: int) -> None:
    logger.log_video(key, [str(path)], step=step, format=["gif"])


def _video_to_mlflow(logger: Any, key: str, path: Path, step: int) -> None:
    # An artifact has the name of its file, which may have characters that MLflow refuses.
    with TemporaryDirectory() as folder:
        copy = Path(folder, f"step={step:06d}{path.suffix}")
        copy.write_bytes(path.read_bytes())
        logger.experiment.log_artifact(logger.run_id, str(copy), _artifact(key))


def _artifact(key: str) -> str:
    """A key as a path that MLflow takes, as Lightning makes names of metrics."""
    return re.sub(r"[^a-zA-Z0-9_/. =-]+", "", key)


_SENDERS: dict[tuple[str, str], Callable[[Any, str, Any, int], None]] = {
    ("image", "TensorBoardLogger"): _image_to_tensorboard,
    ("image", "WandbLogger"): _image_to_wandb,
    ("image", "MLFlowLogger"): _image_to_mlflow,
    ("text", "TensorBoardLogger"): _text_to_tensorboard,
    ("text", "WandbLogger"): _text_to_wandb,
    ("text", "MLFlowLogger"): _text_to_mlflow,
    ("video", "WandbLogger"): _video_to_wandb,
    ("video", "MLFlowLogger"): _video_to_mlflow,
}


def run_folder(trainer: Trainer) -> Path:
    """The folder of a run: where Lightning keeps its checkpoints.

    Every process must ask, since the first one tells the others.
    """
    folder = Path(trainer.log_dir or trainer.default_root_dir)
    logger = trainer.logger
    if logger is None or {"TensorBoardLogger", "CSVLogger"} & set(class_names(logger)):
        return folder
    # For other loggers, the log_dir is that of all runs.
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return folder / trainer.strategy.broadcast(f"{logger.name}/{version}")


def log_figures(outlet: Outlet, key_prefix: str, folder: Path, results: Sequence[CKAResult], step: int) -> None:
    """Draw the latest result and the history; log both, and write them to PNG files.

    Args:
        outlet: where they go.
        key_prefix: of the images' keys, ``heatmap`` and ``drift``.
        folder: of the files, made if need be. The heatmap's name has epoch and step, the drift map is
            written anew each time.
        results: of one reference, in order; the last one is new. Without an epoch it is of a model that was
            validated outside training, and the drift map has no place for it.
        step: of the images, on the axis of Lightning's own scalars.
    """
    last = results[-1]
    figures: dict[str, tuple[Callable[[], Figure], Path]] = {
        "heatmap": (lambda: plot_cka(last)[0], folder / heatmap_file(last))
    }
    if last.epoch is not None and not last.within and last.same_named():
        trained = [result for result in results if result.epoch is not None]
        figures["drift"] = (lambda: plot_drift(trained)[0], folder / "drift.png")
    outlet.figures(key_prefix, figures, step)


def heatmap_file(result: CKAResult) -> str:
    """The name of a heatmap's file."""
    return f"heatmap-{moment(result.epoch, result.step)}.png"


def write_picture(path: Path, pixels: Pixels) -> None:
    """Write a PNG file, whole or not at all; its folder is made if need be.

    Raises:
        OSError: it cannot be written.
    """
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    write_atomically(path, content.getvalue())
