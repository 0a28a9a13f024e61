"""`FigureQueue`: draw figures in a background thread, write them to files and log them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lightning_cka.figures.heatmap_series import HeatmapSeries
from lightning_cka.figures.pictures import PRINT_DPI, png, render
from lightning_cka.monitor.loggers import LoggerOutput
from lightning_cka.runtime.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Draw = Callable[[], Figure | bytes]
    """A function that returns a figure, or the content of its PNG file."""

    Figures = Mapping[str, tuple[Draw, Path]]
    """By the last part of the logged key: a function that draws the figure, and the figure's file."""


class FigureQueue:
    """Draws figures in a thread, and hands them to the loggers, which get them in threads of their own.

    Drawing takes longer than the comparison, so training continues meanwhile. Only rank 0 uses the queue.

    Args:
        loggers: Get the images.

    Attributes:
        heatmaps: Draws heatmaps in the thread. It keeps what they have in common until `finish`.
    """

    def __init__(self, loggers: LoggerOutput) -> None:
        self._loggers = loggers
        self._errors = loggers.errors
        self._thread: ThreadPoolExecutor | None = None
        self._queue: deque[tuple[str, int, Future[_Drawn]]] = deque()
        self._other: Future[None] | None = None
        self.heatmaps = HeatmapSeries()

    def submit(self, key_prefix: str, figures: Figures, step: int) -> None:
        """Start to draw figures and to write them to their files.

        Args:
            key_prefix: Prefix of the logged keys.
            figures: What to draw.
            step: The step of the images, on the axis of Lightning's own scalars.
        """
        for key, (draw, path) in figures.items():
            self._queue.append((key_prefix + key, step, self._executor.submit(_draw, draw, path)))

    def start(self, action: Callable[[], None]) -> Future[None]:
        """Run something else in the thread, after the figures that wait. `deliver` does not wait for it.

        Args:
            action: It may raise; then the future has the error. The last one must have ended.
        """
        self._other = self._executor.submit(action)
        return self._other

    @property
    def _executor(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "cka-figures")
        return self._thread

    def deliver(self, *, wait: bool) -> None:
        """Hand the figures that are drawn to the loggers, without waiting for the loggers.

        Args:
            wait: True: wait until all figures are drawn, and end the thread that draws if it has nothing else to do.
        """
        while self._queue and (wait or self._queue[0][2].done()):
            self._errors.attempt(partial(self._log, *self._queue.popleft()))
        if wait and self._thread is not None and (self._other is None or self._other.done()):
            self._thread.shutdown()
            self._thread = None
        self._loggers.warn_about_errors()

    def finish(self) -> None:
        """Wait until all figures are drawn and the loggers have them."""
        self.deliver(wait=True)
        self.heatmaps.clear()
        self._loggers.finish()

    def _log(self, key: str, step: int, drawn: Future[_Drawn]) -> None:
        content, error = drawn.result()
        if unsupported := self._loggers.send("image", key, content, step):
            self._errors.warn(
                f"{', '.join(unsupported)} cannot log images: the CKA figures are in {self._errors.folder}"
            )
        if error is not None:
            raise error


class _Drawn(NamedTuple):
    content: bytes
    """The PNG file."""
    error: OSError | None
    """The error of writing the file."""


def _draw(draw: Draw, path: Path) -> _Drawn:
    drawn = draw()
    content = drawn if isinstance(drawn, bytes) else png(render(drawn, PRINT_DPI), PRINT_DPI)
    try:
        write_atomically(path, content)
    except OSError as error:
        return _Drawn(content, error)
    return _Drawn(content, None)
