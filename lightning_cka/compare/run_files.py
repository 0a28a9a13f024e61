"""The names of a run's files: each tells the moment of training that the file belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

BANK_SUFFIX = ".safetensors"

INITIAL = "initial"
"""The name of the moment before the first training step."""


def moment(epoch: int | None, step: int | None) -> str:
    """Return the name of a moment of training, for file names; "validate" outside training."""
    return "validate" if epoch is None or step is None else f"epoch={epoch:03d}-step={step:06d}"


def parse_moment(name: str) -> tuple[int, int] | None:
    """Return the epoch and step of a name made by `moment`; (-1, -1) for `INITIAL`, None for other names."""
    if name == INITIAL:
        return (-1, -1)
    found = re.fullmatch(r"epoch=(\d+)-step=(\d+)", name)
    return (int(found[1]), int(found[2])) if found else None


def bank_files(folder: Path) -> list[Path]:
    """Return the banks of a run in order of time, from its folder or from the folder ``banks`` in it."""
    return _in_order(folder.glob(f"*{BANK_SUFFIX}")) or _in_order((folder / "banks").glob(f"*{BANK_SUFFIX}"))


def result_files(folder: Path) -> list[Path]:
    """Return the results of one reference in order of time, from the folder of that reference."""
    return _in_order(folder.glob("*.json"))


def _in_order(paths: Iterable[Path]) -> list[Path]:
    moments = {path: parse_moment(path.stem) for path in paths}
    known = {path: epoch_and_step for path, epoch_and_step in moments.items() if epoch_and_step is not None}
    return sorted(known, key=lambda path: known[path])
