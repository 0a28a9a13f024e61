"""Where the files of a run are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import moment, result_files
from lightning_cka.runtime.namespaces import class_names

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def run_folder(trainer: Trainer) -> Path:
    """The folder of a run: where Lightning keeps its checkpoints.

    Every process must ask, since the first one tells the others.
    """
    folder = Path(trainer.log_dir or trainer.default_root_dir)
    logger = trainer.logger
    if logger is None or {"TensorBoardLogger", "CSVLogger"} & set(class_names(logger)):
        return folder
    # For other loggers, the log_dir is that of all runs.
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return folder / trainer.strategy.broadcast(f"{logger.name}/{version}")


def has_results(path: Path) -> bool:
    """Whether this is the folder of a reference, of any run but those that were set aside."""
    return not path.name.startswith("earlier-") and any(result_files(folder) for folder in (path, *path.glob("*/")))


def result_path(folder: Path, key: str, result: CKAResult) -> Path:
    """The file of a result, in the folder of a run."""
    return folder / key / f"{moment(result.epoch, result.step)}.json"
