"""The names of a run's files, and their order in time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

BANK_SUFFIX = ".safetensors"


INITIAL = "initial"
"""The moment before the first step, among those that `moment` names."""


def moment(epoch: int | None, step: int | None) -> str:
    """A moment of training, in file names; of a model that was validated outside training, it has none."""
    return "validate" if epoch is None or step is None else f"epoch={epoch:03d}-step={step:06d}"


def parse_moment(name: str) -> tuple[int, int] | None:
    """Epoch and step of a name that `moment` made, (-1, -1) for `INITIAL`; None for other names."""
    if name == INITIAL:
        return (-1, -1)
    found = re.fullmatch(r"epoch=(\d+)-step=(\d+)", name)
    return (int(found[1]), int(found[2])) if found else None


def bank_files(folder: Path) -> list[Path]:
    """The banks of a run in order of time, from its folder or from the folder ``banks`` in it."""
    return _in_order(folder.glob(f"*{BANK_SUFFIX}")) or _in_order((folder / "banks").glob(f"*{BANK_SUFFIX}"))


def result_files(folder: Path) -> list[Path]:
    """The results of one reference in order of time, from the folder of that reference."""
    return _in_order(folder.glob("*.json"))


def _in_order(paths: Iterable[Path]) -> list[Path]:
    moments = {path: parse_moment(path.stem) for path in paths}
    known = {path: when for path, when in moments.items() if when is not None}
    return sorted(known, key=lambda path: known[path])
