"""`FigureQueue`: draw figures in a background thread, write them to files and log them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING, NamedTuple

from lightning.pytorch.utilities import rank_zero_info

from lightning_cka.figures.heatmap_series import HeatmapSeries
from lightning_cka.figures.pictures import PRINT_DPI, png, render
from lightning_cka.monitor.drawing_budget import DrawingBudget
from lightning_cka.monitor.loggers import LoggerOutput
from lightning_cka.runtime.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Draw = Callable[[], Figure | bytes]
    """A function that returns a figure, or the content of its PNG file."""

    Figures = Mapping[str, tuple[Draw, Path]]
    """By the last part of the logged key: a function that draws the figure, and the figure's file."""

_MOST_DRAWN = 16
"""Number of files in memory that wait for the loggers. Drawing waits then."""
_ANNOUNCED = 3.0
"""Seconds of drawing at the end of training that are announced."""


class FigureQueue:
    """Draws figures in a thread, and hands them to the loggers, which get them in threads of their own.

    Training continues meanwhile, but the thread slows it down. So there is a budget; see `DrawingBudget`. What it does
    not allow yet is drawn later, at the end of training at the latest. Meanwhile, a figure whose file a newer one will
    overwrite is left out. Only rank 0 uses the queue.

    Args:
        loggers: Get the images.

    Attributes:
        heatmaps: Draws heatmaps in the thread. It keeps what they have in common until `finish`.
    """

    def __init__(self, loggers: LoggerOutput) -> None:
        self.heatmaps = HeatmapSeries()
        self._loggers = loggers
        self._errors = loggers.errors
        self._budget = DrawingBudget()
        self._changed = Condition()  # It guards all that follows.
        self._actions: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._waiting: deque[_Figure] = deque()
        self._drawn: deque[_Drawn] = deque()
        self._is_running = self._is_drawing = False
        self._all_now = False
        self._thread: ThreadPoolExecutor | None = None

    def submit(self, key_prefix: str, figures: Figures, step: int) -> None:
        """Let figures be drawn and written to their files. If very many wait already, wait for some of them.

        Args:
            key_prefix: Prefix of the logged keys.
            figures: What to draw.
            step: The step of the images, on the axis of Lightning's own scalars.
        """
        with self._changed:
            for key, (draw, path) in figures.items():
                self._add(_Figure(key_prefix + key, step, draw, path))
        self.deliver(wait=False)
        while self._budget.is_exhausted(len(self._waiting)):
            with self._changed:
                self._changed.wait_for(lambda: self._drawn or not self._is_running)
            self.deliver(wait=False)

    def _add(self, figure: _Figure) -> None:
        places = [place for place, other in enumerate(self._waiting) if other.path == figure.path]
        if not places or self._budget.allows(len(self._waiting)):
            self._waiting.append(figure)
            return
        for place in reversed(places[1:]):
            del self._waiting[place]
        self._waiting[places[0]] = figure

    def start(self, action: Callable[[], None]) -> Future[None]:
        """Run something else in the thread, before the figures that wait. `deliver` does not wait for it.

        Args:
            action: It may raise; then the future has the error.
        """
        future: Future[None] = Future()
        with self._changed:
            self._actions.append((action, future))
        self._continue()
        return future

    def deliver(self, *, wait: bool) -> None:
        """Hand the figures that are drawn to the loggers, without waiting for the loggers.

        Args:
            wait: True: draw all figures now, wait until they are drawn, and until the loggers have room for them.
        """
        if wait:
            self._announce()
        try:
            self._all_now = wait
            self._continue()
            while (drawn := self._next_drawn(wait=wait)) is not None:
                self._continue()  # There is room for another file.
                self._errors.attempt(partial(self._log, drawn, wait=wait))
        finally:
            self._all_now = False
        self._loggers.warn_about_errors()

    def finish(self) -> None:
        """Wait until all figures are drawn and the loggers have them."""
        self.deliver(wait=True)
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        self.heatmaps.clear()
        self._loggers.finish()

    def _announce(self) -> None:
        count = len(self._waiting)
        if (seconds := self._budget.seconds_of(count)) > _ANNOUNCED:
            rank_zero_info(f"CKA: drawing {count} figures that training did not wait for, in about {seconds:.0f} s")

    def _next_drawn(self, *, wait: bool) -> _Drawn | None:
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._drawn or not (self._is_drawing or self._waiting))
            return self._drawn.popleft() if self._drawn else None

    def _log(self, drawn: _Drawn, *, wait: bool) -> None:
        figure, content, error = drawn
        if content is not None:
            if wait:
                self._loggers.wait_for_room()
            if unsupported := self._loggers.send("image", figure.key, content, figure.step):
                self._errors.warn(
                    f"{', '.join(unsupported)} cannot log images: the CKA figures are in {self._errors.folder}"
                )
        if error is not None:
            raise error

    def _continue(self) -> None:
        """Let the thread run if there is something to do now."""
        with self._changed:
            if self._is_running or not (self._actions or self._may_draw()):
                return
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "cka-figures")
            self._thread.submit(self._run)
            self._is_running = True  # The thread waits for this block to end.

    def _may_draw(self) -> bool:
        has_room = len(self._drawn) < _MOST_DRAWN
        return bool(self._waiting) and has_room and (self._all_now or self._budget.allows(len(self._waiting)))

    def _run(self) -> None:
        """Do in the thread what there is to do now."""
        while True:
            with self._changed:
                action = self._actions.popleft() if self._actions else None
                figure = self._waiting.popleft() if action is None and self._may_draw() else None
                self._is_drawing = figure is not None
                self._is_running = self._is_drawing or action is not None
                self._changed.notify_all()
            if action is not None:
                with self._budget.action():
                    _complete(*action)
            elif figure is not None:
                with self._budget.drawing():
                    drawn = _draw(figure)
                with self._changed:
                    self._drawn.append(drawn)
                    self._is_drawing = False
                    self._changed.notify_all()
            else:
                return


class _Figure(NamedTuple):
    key: str
    step: int
    draw: Draw
    path: Path


class _Drawn(NamedTuple):
    figure: _Figure
    content: bytes | None
    """The PNG file; None if it could not be drawn."""
    error: BaseException | None
    """The error of drawing or of writing the file."""


def _draw(figure: _Figure) -> _Drawn:
    content = None
    try:
        drawn = figure.draw()
        content = drawn if isinstance(drawn, bytes) else png(render(drawn, PRINT_DPI), PRINT_DPI)
        write_atomically(figure.path, content)  # Loggers get the same: drawing twice would take longer.
    except BaseException as error:  # noqa: BLE001  # The main thread raises it or warns. It must not wait for ever.
        return _Drawn(figure, content, error)
    return _Drawn(figure, content, None)


def _complete(action: Callable[[], None], future: Future[None]) -> None:
    try:
        action()
    except BaseException as error:  # noqa: BLE001  # The main thread raises it.
        future.set_exception(error)
    else:
        future.set_result(None)
