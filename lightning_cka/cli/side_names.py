"""Names of two runs that differ: the model's class, with the part of the path that tells the runs apart."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

from lightning_cka.compare.run_files import BANK_SUFFIX, parse_moment
from lightning_cka.figures.labels import MAX_LABEL

_CONVENTIONAL = ("lightning_logs", "checkpoints", "cka")
"""Folders that tell nothing about a run."""

_VERSION = re.compile(r"version_\d+")
"""Folders that tell nothing about a run beside a path without one."""


def name_runs(paths: tuple[Path, Path], names: tuple[str, str]) -> tuple[str, str]:
    """Return two names that are different if the files are of different runs.

    Args:
        paths: A file of each run.
        names: The names of the models, such as their classes. Different ones stay as they are.

    Returns:
        The names, such as "Net (seed0)" and "Net (seed1)".
    """
    if names[0] != names[1]:
        return names
    one, other = (_run_parts(path) for path in paths)
    if one == other:
        return names
    return _joined(names[0], _distinct(one, other)), _joined(names[1], _distinct(other, one))


def _joined(name: str, part: str) -> str:
    """Return the class and the part of the path; the part alone if figures would cut the text."""
    text = f"{name} ({part})"
    return text if len(text) <= MAX_LABEL else part


def _run_parts(path: Path) -> tuple[str, ...]:
    """Return the parts of the path of a run's folder; for a file outside a run, those of the file without its ending.

    A bank of a run is in ``banks``, a result in the folder of its reference. Both have the name of a moment.
    """
    path = path.resolve()
    is_bank_of_a_run = path.suffix == BANK_SUFFIX and path.parent.name == "banks"
    if parse_moment(path.stem) is None or not (is_bank_of_a_run or path.suffix == ".json"):
        return path.with_suffix("").parts
    with_history = (folder for folder in path.parents[:3] if (folder / "history.jsonl").is_file())
    return next(with_history, path.parent.parent).parts


def _distinct(own: tuple[str, ...], other: tuple[str, ...]) -> str:
    """Return the parts of a path that another one lacks; without any, all that follows their common start."""
    different = [part for part in own if part not in other]
    telling = [part for part in different if part not in _CONVENTIONAL]
    if not any(map(_VERSION.fullmatch, other)):
        telling = [part for part in telling if not _VERSION.fullmatch(part)] or telling
    found = telling or different
    if not found:
        start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(own, other, strict=False)))
        found = list(own[start:]) or [own[-1]]
    return "/".join(found)
