"""What a path on the command line is: a bank, a result, the folder of a run, or a checkpoint."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from safetensors import SafetensorError

from lightning_cka.compare.run_files import BANK_SUFFIX
from lightning_cka.runtime.checkpoint_files import is_bank

_CHECKPOINTS = (".ckpt", ".pt", ".pth", ".bin")
"""Endings of checkpoints. Those of safetensors are recognised by their content."""


class Kind(Enum):
    """What a path is. The value describes it in a message."""

    BANK = "a bank"
    RESULT = "a result"
    FOLDER = "a folder"
    CHECKPOINT = "a checkpoint"


def kind_of(path: Path) -> Kind:
    """Return what a path is, by its ending. Only safetensors files are opened.

    Raises:
        FileNotFoundError: There is nothing at this path.
        ValueError: The ending is unknown.
    """
    if path.is_dir():
        return Kind.FOLDER
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {str(path)!r}")
    ending = path.suffix.lower()
    if ending == BANK_SUFFIX:
        return Kind.BANK if _is_bank_or_damaged(path) else Kind.CHECKPOINT
    if ending == ".json":
        return Kind.RESULT
    if ending in _CHECKPOINTS:
        return Kind.CHECKPOINT
    raise ValueError(
        f"{str(path)!r} has an unknown ending: expected a bank (.safetensors), a result (.json), the folder of a run, "
        f"or a checkpoint ({', '.join(_CHECKPOINTS)} or .safetensors)"
    )


def _is_bank_or_damaged(path: Path) -> bool:
    """Return whether a safetensors file is a bank, or damaged: reading it as a bank names the problem."""
    try:
        return is_bank(path)
    except SafetensorError:
        return True
