"""`ReportFile`: the interactive view of a run as ``report.html``, written while the run goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import histories_of_training, last_of_training
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.monitor.figure_queue import FigureQueue
from lightning_cka.monitor.loggers import LoggerOutput
from lightning_cka.monitor.reference import REPORT
from lightning_cka.view.growing import GrowingPayload
from lightning_cka.view.page import write_page

SECONDS = 30.0
"""Least time between two writings of the file, except at the end."""

LOGGER_SECONDS = 300.0
"""Least time between two copies to a logger, except at the end."""


class ReportFile:
    """Writes the view of a run in the thread that draws, and hands it to the loggers. Only rank 0 uses it.

    It keeps the packed form of the results, which takes about as much memory as the file.

    Args:
        folder: The run's folder.
        key: The logged key.
        figures: Has the thread.
        loggers: Get the file.

    Attributes:
        ceilings: Seed ceilings by measure.
    """

    def __init__(self, folder: Path, key: str, figures: FigureQueue, loggers: LoggerOutput) -> None:
        self._path = folder / REPORT
        self._key = key
        self._figures = figures
        self._loggers = loggers
        self._payload = GrowingPayload("/".join(folder.resolve().parts[-2:]))
        self.ceilings: Mapping[str, SeedCeiling] = {}
        self._new: Mapping[str, Sequence[CKAResult]] = {}
        self._step = 0
        self._writing: Future[None] | None = None
        self._started = -SECONDS
        self._sent = -LOGGER_SECONDS
        self._is_sent = True

    def update(self, results: Mapping[str, Sequence[CKAResult]], step: int) -> None:
        """Note new results of training, and start to write if enough time has passed.

        Args:
            results: All results of the run in order, by the key of `Settings.key`.
            step: The step of the loggers.
        """
        self._new = results if any(map(last_of_training, results.values())) else {}
        self._step = step
        self.poll()

    def poll(self) -> None:
        """Start to write noted results if enough time has passed, and hand a written file to the loggers."""
        if self._writing is not None and self._writing.done():
            self._finish_writing(is_last=False)
        if self._new and self._writing is None and time.monotonic() - self._started >= SECONDS:
            self._start()

    def finish(self) -> None:
        """Write noted results, wait until they are written, and hand the last file to the loggers."""
        if self._writing is not None:
            self._finish_writing(is_last=not self._new)
        if self._new:
            self._start()
            self._finish_writing(is_last=True)
        elif not self._is_sent:
            self._send()

    def _start(self) -> None:
        new, self._new = histories_of_training(self._new), {}
        ceilings = list(self.ceilings.values())
        self._started = time.monotonic()
        self._writing = self._figures.start(lambda: write_page(self._path, self._payload.payload(new, ceilings)))

    def _finish_writing(self, *, is_last: bool) -> None:
        """Wait until the file is written. An error becomes a warning."""
        writing, self._writing = self._writing, None
        if writing is None or not self._loggers.errors.attempt(writing.result):
            return
        self._is_sent = False
        if is_last or time.monotonic() - self._sent >= LOGGER_SECONDS:
            self._send()

    def _send(self) -> None:
        self._is_sent, self._sent = True, time.monotonic()
        self._loggers.send("report", self._key, self._path, self._step)
