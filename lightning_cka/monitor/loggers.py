"""`LoggerOutput`: send pictures, texts and comparisons to the loggers of a Trainer, in threads of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from lightning_cka.monitor.logger_functions import Kind, find_send
from lightning_cka.monitor.logger_thread import LoggerThread
from lightning_cka.monitor.output_errors import OutputErrors


class LoggerOutput:
    """Sends images, texts and videos to all loggers of a Trainer, without waiting for them.

    Only rank 0 uses it. A logger that raises causes a warning; the other loggers still get the value.

    Args:
        loggers: The Trainer's loggers, of ``lightning.pytorch`` or of ``pytorch_lightning``.
        errors: Receives the loggers' errors.
    """

    def __init__(self, loggers: Sequence[Any], errors: OutputErrors) -> None:
        self._loggers = loggers
        self._threads = [LoggerThread(type(logger).__name__) for logger in loggers]
        self.errors = errors

    def send(self, kind: Kind, key: str, value: Any, step: int) -> list[str]:
        """Send a value to each logger that supports its kind, in the logger's own thread.

        Args:
            kind: What the value is.
            key: The logged key.
            value: The content of the PNG file of an "image", the path of the GIF of a "video", a "text", the path of
                the HTML file of a "report", which a later one replaces, or the `Comparisons` of a "comparison".
            step: The step, on the axis of Lightning's own scalars.

        Returns:
            Class names of the loggers that do not support this kind.
        """
        unsupported = []
        for logger, thread in zip(self._loggers, self._threads, strict=True):
            name = type(logger).__name__
            if (function := find_send(kind, logger)) is None:
                unsupported.append(name)
            else:
                action = partial(function, logger, key, value, step)
                if not thread.put(action, f"{name} could not log the CKA {kind}s"):
                    self._warn_about_loss(name)
        self.warn_about_errors()
        return unsupported

    def wait_for_room(self) -> None:
        """Wait until no logger drops a value for the next one, except for loggers that hang."""
        for thread in self._threads:
            thread.wait_for_room()

    def warn_about_errors(self) -> None:
        """Warn about what the loggers have raised until now."""
        for thread in self._threads:
            for failure, error in thread.take_errors():
                self.errors.warn_about(error, failure)

    def finish(self) -> None:
        """Wait until the loggers have taken all values. A logger that hangs causes a warning."""
        for logger, thread in zip(self._loggers, self._threads, strict=True):
            if thread.finish():
                self._warn_about_loss(type(logger).__name__)
        self.warn_about_errors()

    def _warn_about_loss(self, name: str) -> None:
        self.errors.warn(f"{name} is too slow for the CKA figures, and lacks some: all are in {self.errors.folder}")
