"""The banks in the folder of a run, by epoch and by step, and the choice between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning_cka.cli.choices import ChoiceNeededError
from lightning_cka.compare.run_files import INITIAL, bank_files, parse_moment
from lightning_cka.runtime.text import shortened

Axis = Literal["epoch", "step"]
"""What names a bank of a run; also the name of the option."""

LAST = "last"
"""The name of the last bank of a run."""

_DEPTH = 5
"""How many folders deep the banks of a run are looked for. Below ``default_root_dir``, it takes 3."""

_SHOWN = 30
"""Number of epochs that a message lists."""


@dataclass(frozen=True)
class RunBanks:
    """The banks of one run."""

    folder: Path
    """The folder, as the user wrote it."""
    files: tuple[Path, ...]
    """The banks in order of time; at least one."""

    @classmethod
    def in_folder(cls, folder: Path) -> RunBanks:
        """Find the banks of the only run in a folder.

        Args:
            folder: The ``dirpath`` of a CKAMonitor, its folder ``banks``, or Lightning's folder of the run.

        Raises:
            ValueError: There are no banks, or those of several runs.
            FileNotFoundError: There is no such folder.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r}")
        if own := bank_files(folder):
            return cls(folder, tuple(own))
        places = (place for depth in range(1, _DEPTH + 1) for place in folder.glob("*/" * depth + "banks"))
        inside = sorted(place for place in places if _is_of_a_run(place, folder))
        if len(inside) == 1:
            return cls(folder, tuple(bank_files(inside[0])))
        if inside:
            runs = shortened([str(place.parent) for place in inside])
            raise ValueError(f"{str(folder)!r} has the banks of {len(inside)} runs: pass one of {runs}")
        raise ValueError(
            f"{str(folder)!r} has no banks, which hold the Gram matrices of a run. CKAMonitor(save_banks=True) keeps "
            "one for each epoch, in the folder cka where Lightning keeps the run's checkpoints, or in dirpath="
        )

    def by(self, axis: Axis) -> dict[str, Path]:
        """Return the banks by the number of their epoch or step, in order of time; the last bank of each epoch."""
        return {name: path for path in self.files if (name := _name(path, axis))}

    @property
    def is_by_steps(self) -> bool:
        """Whether the run was compared by optimizer steps, so that its banks have no epochs."""
        return any(not _name(path, "epoch") for path in self.files)

    def find(self, axis: Axis, name: str) -> Path:
        """Return one bank.

        Args:
            axis: What the name is.
            name: A number, "initial" for the moment before training, or "last".

        Raises:
            ValueError: The run has no such bank.
        """
        if name == LAST:
            return self.files[-1]
        found = self.by(axis)
        if name not in found:
            raise ValueError(
                f"{str(self.folder)!r} has no bank of {axis} {name}, but of {_listed(list(found))}{self._hint(axis)}"
            )
        return found[name]

    def _hint(self, axis: Axis) -> str:
        """Return what to do if there is no bank of an epoch."""
        if axis == "epoch" and self.is_by_steps:
            return ". The run was compared by steps: use --step"
        return ". CKAMonitor(save_banks=True) keeps one for each epoch" if list(self.by("epoch")) == [INITIAL] else ""


def choice_of(
    option: Axis, arguments: tuple[Path, Path], runs: Sequence[RunBanks], others: Sequence[str] = ()
) -> ChoiceNeededError:
    """Return the question which banks of runs to compare.

    Args:
        option: The option that chooses banks.
        arguments: The two paths that the user gave.
        runs: The one or two that are folders of runs.
        others: Other options, which the commands repeat.
    """
    names = [list(run.by(option)) for run in runs]
    both = [name for name in names[0] if name in names[-1]]
    plural = f"{option}s"
    if len(runs) == 1 or arguments[0] == arguments[1]:
        found = [f"{plural} in {runs[0].folder}: {_listed(names[0])}"]
    else:
        found = [f"{plural} in both: {_listed(both)}"]
        for run, own in zip(runs, names, strict=True):
            only = [name for name in own if name not in both]
            found += [f"{plural} in {run.folder} only: {_listed(only)}"] if only else []
    found += sorted({f"{run.folder}:{hint[1:]}" for run in runs if (hint := run._hint(option))})
    command = ["compare", *map(str, arguments), *others, f"--{option}"]
    pairs = [[names[0][-1]]] if len(runs) == 1 else _suggested(names, both, is_one_run=arguments[0] == arguments[1])
    question = f"--{option} chooses which banks to compare, or pass two banks (.safetensors)"
    return ChoiceNeededError(question, found, [[*command, *pair] for pair in pairs])


def _suggested(names: Sequence[Sequence[str]], both: Sequence[str], *, is_one_run: bool) -> list[list[str]]:
    """Return values of the option for two runs: the last epoch of both, and two different epochs."""
    same = [[both[-1]]] if both and not is_one_run else []
    first = names[0][0] if is_one_run or len(names[0]) < 2 else names[0][-2]
    return [*same, [first, names[1][-1]]]


def _name(path: Path, axis: Axis) -> str:
    """Return the number of the epoch or step of a bank; empty if it has no epoch."""
    moment = parse_moment(path.stem)
    if path.stem == INITIAL or moment is None:
        return path.stem
    number = moment[0] if axis == "epoch" else moment[1]
    return "" if number < 0 else str(number)


def _is_of_a_run(banks: Path, folder: Path) -> bool:
    """Return whether a folder has banks, and is not that of an earlier run that was moved aside."""
    is_aside = any(part.startswith("earlier-") for part in banks.relative_to(folder).parts)
    return not is_aside and bool(bank_files(banks))


def _listed(names: Sequence[str]) -> str:
    return shortened(list(names), _SHOWN) or "none"
