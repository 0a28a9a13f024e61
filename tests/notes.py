"""Notes that a forward pass leaves behind."""

from __future__ import annotations

import queue


class Notes(queue.Queue):
    """What code inside a forward pass has noted. Lists and globals that it writes to are restored; queues are not."""

    def all(self):
        return list(self.queue)

    def clear(self):
        self.queue.clear()
