"""Where a run's files are: the monitor's folder, and the results in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import moment, result_files
from lightning_cka.monitor.settings import Settings
from lightning_cka.runtime.file_names import safe_file_name
from lightning_cka.runtime.namespaces import class_names

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def run_folder(trainer: Trainer) -> Path:
    """Return the folder in which Lightning keeps a run's checkpoints.

    Every process must call this, because rank 0 broadcasts the name.
    """
    folder = Path(trainer.log_dir or trainer.default_root_dir)
    logger = trainer.logger
    if logger is None or {"TensorBoardLogger", "CSVLogger"} & set(class_names(logger)):
        return folder
    # With other loggers, all runs have the same log_dir.
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return folder / trainer.strategy.broadcast(f"{logger.name}/{version}")


def monitor_folder(trainer: Trainer, settings: Settings) -> Path:
    """Return the folder of a monitor's files. Every process must call this."""
    parts = [safe_file_name(part) for part in settings.log_key_prefix.split("/") if part] or ["cka"]
    default = run_folder(trainer).joinpath(*parts)
    return default if settings.dirpath is None else Path(settings.dirpath)


def has_results(path: Path) -> bool:
    """Whether a folder contains results of a reference, but not those of an earlier run (``earlier-*``)."""
    return not path.name.startswith("earlier-") and any(result_files(folder) for folder in (path, *path.glob("*/")))


def result_path(folder: Path, key: str, result: CKAResult) -> Path:
    """Return the path of a result's file.

    Args:
        folder: The run's folder.
        key: The key of `Settings.key`.
        result: The result.
    """
    return folder / key / f"{moment(result.epoch, result.step)}.json"
