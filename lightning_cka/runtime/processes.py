"""Whether a process of this computer still runs."""

from __future__ import annotations

import os
from pathlib import Path


def is_running(pid: int) -> bool | None:
    """Return whether a process of this computer runs; None if the operating system does not tell."""
    if os.name != "posix":
        return None  # On Windows, os.kill ends the process.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # It belongs to another user.
    return True


def start_time(pid: int) -> str:
    """Return when a process started, in units of the operating system; empty if unknown.

    A process number is used again after the process has ended. The start time tells the two processes apart.
    """
    try:
        # The name of the program is in parentheses, and may have spaces.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
