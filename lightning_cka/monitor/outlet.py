"""Draw figures in a thread, and bring them to loggers and files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_cka.figures.pictures import Pixels, render, write_picture
from lightning_cka.monitor.loggers import SENDERS, image_to_wandb
from lightning_cka.runtime.namespaces import class_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Figures = Mapping[str, tuple[Callable[[], Figure], Path]]
    """What draws each figure, and its file, by the last part of the logged key."""


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
            send = next((SENDERS[kind, name] for name in names if (kind, name) in SENDERS), None)
            if send is None and kind == "image" and callable(getattr(logger, "log_image", None)):
                send = image_to_wandb  # Loggers of other people that have it have it as that one does.
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
