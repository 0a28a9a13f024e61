"""`WarnOnce`: each warning is issued once per run."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_warn


class WarnOnce:
    """Issues each warning once per run, on rank 0."""

    def __init__(self) -> None:
        self._keys: set[tuple[object, ...]] = set()

    def __call__(self, message: str) -> None:
        """Warn, unless the same message was issued before."""
        if self.is_new(message):
            rank_zero_warn(message)

    def is_new(self, *key: object) -> bool:
        """Return True at the first call with this key, and False afterwards."""
        new = key not in self._keys
        self._keys.add(key)
        return new
