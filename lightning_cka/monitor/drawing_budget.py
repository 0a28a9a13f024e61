"""`DrawingBudget`: how much of the time of training may be spent on drawing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SHARE = 0.1
"""CPU time of drawing as a part of the time of training, while training continues."""

PUT_OFF = 5.0
"""Seconds of drawing that are put off at most: training ends with about as long a wait. With more, the share does not
count. With twice as much, drawing is slower than training, which must wait."""


class DrawingBudget:
    """Measures the time of drawing, and tells whether there may be more of it.

    Training is the time since the budget was made. Drawing is the CPU time of the thread that draws.
    """

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._spent = 0.0
        self._figures = 0
        self._of_figures = 0.0

    def seconds_of(self, count: int) -> float:
        """Return about how long it takes to draw this number of figures, by those that were drawn."""
        return count * self._of_figures / max(1, self._figures)

    def allows(self, waiting: int) -> bool:
        """Whether a figure may be drawn now, if this number of figures wait."""
        has_time = self._spent <= SHARE * (time.monotonic() - self._start)
        return has_time or self.seconds_of(waiting) > PUT_OFF

    def is_exhausted(self, waiting: int) -> bool:
        """Whether training must wait for some of the figures that wait."""
        return self.seconds_of(waiting) > 2 * PUT_OFF

    @contextmanager
    def action(self) -> Iterator[None]:
        """Count the time of what is done in this thread meanwhile."""
        start = time.thread_time()
        try:
            yield
        finally:
            self._spent += time.thread_time() - start

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Count the drawing of one figure in this thread."""
        before = self._spent
        with self.action():
            yield
        self._of_figures += self._spent - before
        self._figures += 1
