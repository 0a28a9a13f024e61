"""`FolderOwner`: a file that marks the folder of a live run, so that two live runs do not write to one folder."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from itertools import count
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cka.monitor.trainer_state import is_trial
from lightning_cka.runtime.processes import is_running, start_time

OWNER_FILE = "owner.json"


STALE_AFTER = 1800.0
"""Seconds without a sign of life after which the run of another computer counts as ended."""


_BEAT_EVERY = 60.0


_tokens: set[str] = set()
"""The tokens of this process's live runs."""


class FolderOwner:
    """Owns the folder of one run, from `acquire` to `release`."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._token = ""
        self._beaten = 0.0

    def acquire(self, folder: Path, trainer: Trainer) -> Path:
        """Take a folder for a run. Rank 0 decides, and every process must call this.

        A file that a killed run left is replaced. A folder that cannot be written to gets no file.

        Args:
            folder: The folder that the run wants.
            trainer: The run's Trainer.

        Returns:
            The folder, or, with a warning, the first of ``folder-1``, ``folder-2``, ... without a live run.
        """
        taken = folder
        if trainer.is_global_zero and not is_trial(trainer):
            names = (folder, *(folder.with_name(f"{folder.name}-{i}") for i in range(1, 100)))
            taken = next((path for path in names if self._claim(path)), folder)
        taken = Path(trainer.strategy.broadcast(str(taken)))
        if taken != folder:
            rank_zero_warn(f"another live run writes to {folder}: the CKA results of this one are in {taken}")
        return taken

    def beat(self) -> None:
        """Show to other computers that the run is alive, at most once a minute."""
        if self._path is not None and time.monotonic() - self._beaten > _BEAT_EVERY:
            self._beaten = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def release(self) -> None:
        """Remove the file, if it is still that of this run."""
        path, self._path = self._path, None
        _tokens.discard(self._token)
        if path is not None and _read(path).get("token") == self._token:
            with contextlib.suppress(OSError):
                path.unlink()

    def _claim(self, folder: Path) -> bool:
        """Return whether the folder is free for this run, and mark it."""
        path = folder / OWNER_FILE
        self._token = secrets.token_hex(8)
        pid = os.getpid()
        owner = {"host": socket.gethostname(), "pid": pid, "started": start_time(pid), "token": self._token}
        for _ in count():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with path.open("x") as file:
                    file.write(json.dumps(owner))
            except FileExistsError:
                if path.is_dir() or folder.is_file():
                    return True  # Writing results will fail, with a warning.
                if not _remove_stale(path):
                    return False
                continue
            except OSError:
                return True  # The folder is read-only, or the disk is full.
            break
        self._path = path
        _tokens.add(self._token)
        return True


def _remove_stale(path: Path) -> bool:
    """Remove the file of a run that has ended. Return whether there is no file now."""
    owner = _read(path)
    if _is_live(path, owner):
        return False
    stale = path.with_name(f".{OWNER_FILE}.{os.getpid()}.tmp")
    try:
        path.replace(stale)
    except FileNotFoundError:
        return True  # Another process was faster.
    except OSError:
        return False
    if _read(stale) != owner:  # Another process was faster, and this is its new file.
        stale.replace(path)
        return False
    stale.unlink(missing_ok=True)
    return True


def _is_live(path: Path, owner: dict[str, Any]) -> bool:
    if not path.exists():
        return False
    pid = owner.get("pid")
    if owner.get("host") == socket.gethostname() and isinstance(pid, int):
        if pid == os.getpid():
            return owner.get("token") in _tokens
        running = is_running(pid)
        if running is not None:
            return running and owner.get("started") == start_time(pid)
    try:
        return time.time() - path.stat().st_mtime < (STALE_AFTER if owner else _BEAT_EVERY)
    except OSError:
        return False


def _read(path: Path) -> dict[str, Any]:
    """Return the content of an owner file; empty if it cannot be read."""
    try:
        owner = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}
