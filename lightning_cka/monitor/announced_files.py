"""Say once, before training, where the files of a run are and how to open its logs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_cka.monitor.reference import REPORT
from lightning_cka.monitor.trainer_state import is_trial
from lightning_cka.runtime.namespaces import class_names


def announce_files(trainer: Trainer, folder: Path, keys: Sequence[str]) -> None:
    """Log where results and pictures will be, and the command that opens TensorBoard. Only rank 0 logs it.

    Args:
        trainer: The Trainer, before the first step.
        folder: The run's folder.
        keys: The keys of `Settings.key`; at least one.
    """
    if is_trial(trainer) or not trainer.is_global_zero:
        return
    text = f"CKA files: {_short(folder)} (open {REPORT}; pictures in {keys[0]}/)"
    boards = [logger for logger in trainer.loggers if "TensorBoardLogger" in class_names(logger)]
    commands = dict.fromkeys(_command(logger) for logger in boards)
    rank_zero_info("; ".join([text, *commands]))


def _command(logger: Any) -> str:
    """Return the command that shows all runs of a logger's folder."""
    root = str(logger.root_dir)
    folder = root if "://" in root else _short(Path(root))
    return f"open with: tensorboard --logdir {shlex.quote(folder)} --samples_per_plugin images=200"


def _short(folder: Path) -> str:
    """Return a path as seen from the current folder if it is inside it."""
    path, here = folder.resolve(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
