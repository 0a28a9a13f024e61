"""`LoggerThread`: hand figures to one logger in a thread of its own, so that a slow logger does not hold training."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

MAX_WAITING = 64
"""Number of figures that wait for a logger. If there are more, the oldest is dropped; its file is in the folder."""


PATIENCE = 60.0
"""Seconds without progress after which the end of training stops waiting for a logger."""


class LoggerThread:
    """Calls a logger from one thread, in the order of the calls of `put`.

    Scalars reach the logger through Lightning, in the main thread, so both threads may be in the logger at the same
    time. The loggers of TensorBoard, W&B and MLflow allow that: they put values into a queue with a lock, or make a
    separate request for each. Calls of this class never overlap, and their steps do not decrease.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: deque[tuple[Callable[[], object], str]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._num_done = 0
        self._is_busy = False
        self._ends = False
        self._errors: list[tuple[str, Exception]] = []
        self._given_up_after = -1

    def put(self, action: Callable[[], object], failure: str) -> bool:
        """Call an action soon, without waiting for it.

        Args:
            action: The call of the logger.
            failure: What to say if it raises.

        Returns:
            Whether no other action was dropped for it.
        """
        with self._changed:
            self._waiting.append((action, failure))
            is_full = len(self._waiting) > MAX_WAITING
            if is_full:
                self._waiting.popleft()
            if self._thread is None:
                self._ends = False
                # The interpreter does not wait for a daemon thread when it exits.
                self._thread = threading.Thread(target=self._run, name=f"cka-{self._name}", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return not is_full

    def wait_for_room(self) -> None:
        """Wait until `put` drops nothing, or until the logger makes no progress for `PATIENCE` seconds."""
        with self._changed:
            while len(self._waiting) >= MAX_WAITING and self._given_up_after != self._num_done:
                before = self._num_done
                if not self._changed.wait_for(self._has_progress_since(before), PATIENCE):
                    self._given_up_after = before

    def finish(self) -> int:
        """Wait until all actions are done, and end the thread.

        Returns:
            Number of actions that were given up, because the logger made no progress for `PATIENCE` seconds.
        """
        with self._changed:
            before = -1
            while (self._waiting or self._is_busy) and before != self._num_done:
                before = self._num_done
                self._changed.wait_for(self._has_progress_since(before), PATIENCE)
            left = len(self._waiting) + self._is_busy
            self._waiting.clear()
            self._is_busy = False
            self._ends = True
            self._changed.notify_all()
            self._thread = None
        return left

    def take_errors(self) -> list[tuple[str, Exception]]:
        """Return the errors since the last call, each with what to say."""
        with self._changed:
            errors, self._errors = self._errors, []
        return errors

    def _has_progress_since(self, num_done: int) -> Callable[[], bool]:
        return lambda: self._num_done != num_done

    def _run(self) -> None:
        me: Any = threading.current_thread()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ends)
                if not self._waiting or self._thread is not me:
                    return
                action, failure = self._waiting.popleft()
                self._is_busy = True
            error = _error_of(action)
            with self._changed:
                if self._thread is not me:
                    return  # The main thread has given up on this one.
                self._errors += [(failure, error)] if error is not None else []
                self._num_done += 1
                self._is_busy = False
                self._changed.notify_all()


def _error_of(action: Callable[[], object]) -> Exception | None:
    try:
        action()
    except Exception as error:  # noqa: BLE001  # Third-party loggers raise anything; the main thread warns about it.
        return error
    return None
