"""`OutputErrors`: if a file or a logger fails, the user gets a warning and training continues."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lightning_cka.monitor.warn_once import WarnOnce


class OutputErrors:
    """Turns errors of files, figures and loggers into warnings.

    Args:
        folder: The run's folder, which the warnings name.
        warn: Issues the warnings.
    """

    def __init__(self, folder: Path, warn: WarnOnce) -> None:
        self.folder = folder
        self.warn = warn

    def attempt(self, action: Callable[[], object], failure: str = "CKA figures or files could not be written") -> bool:
        """Run an action. If it raises an `Exception`, warn.

        Returns:
            Whether the action succeeded.
        """
        try:
            action()
        except Exception as error:  # noqa: BLE001  # Third-party loggers, matplotlib and file systems raise anything.
            self.warn_about(error, failure)
            return False
        return True

    def warn_about(self, error: Exception, failure: str) -> None:
        """Warn about an error, once for each failure, exception class and ``errno``."""
        if self.warn.is_new("failure", failure, type(error), getattr(error, "errno", None)):
            cause = (str(error).splitlines() or [""])[0][:300]
            self.warn(f"{failure}, training continues: {type(error).__name__}: {cause}; the folder is {self.folder}")
