"""Compare banks: files, or the banks of an epoch or a step in the folders of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_cka.cli.run_banks import Axis, RunBanks, choice_of
from lightning_cka.cli.shared_keywords import shared_keywords
from lightning_cka.cli.side_names import name_runs
from lightning_cka.compare.banks import compare_banks
from lightning_cka.compare.result import CKAResult
from lightning_cka.probe.bank import GramBank


def compare_bank_files(options: Any) -> Mapping[str, CKAResult]:
    """Compare the two banks that the options of ``compare`` name. A path given twice compares a model with itself.

    Raises:
        ValueError: An option is for checkpoints, there is no such bank, or the banks cannot be compared.
        ChoiceNeededError: A path is the folder of a run, and no option chooses its bank.
    """
    given = [
        name
        for name in ("architecture", "dataloader", "feature_fn", "gram_batch_size", "seed", "device")
        if getattr(options, name) is not None
    ]
    if given:
        raise ValueError(f"--{given[0].replace('_', '-')} is for checkpoints, but the paths are banks or runs")
    paths = chosen_files(options)
    a = GramBank.load(paths[0])
    b = a if paths[0] == paths[1] else GramBank.load(paths[1])
    names = names_of_sides(options, paths, (a, b))
    results: Mapping[str, CKAResult] = compare_banks(a, b, strict=options.strict, **shared_keywords(options), **names)
    return results


def names_of_sides(options: Any, paths: tuple[Path, Path], banks: tuple[GramBank, GramBank]) -> dict[str, Any]:
    """Return the names of both sides, as arguments: those that the user chose, or names that tell the files apart."""
    name, reference_name = name_runs(paths, (banks[0].model_name, banks[1].model_name))
    return {"model_name": options.name or name, "reference_name": options.reference_name or reference_name}


def chosen_files(options: Any) -> tuple[Path, Path]:
    """Return both files, where a path that is the folder of a run stands for one of its banks.

    Raises:
        ValueError: There is no such bank, or ``--epoch`` or ``--step`` does not fit the paths.
        ChoiceNeededError: A path is the folder of a run, and no option chooses its bank.
    """
    paths = options.a, options.b
    runs = [RunBanks.in_folder(path) if path.is_dir() else None for path in paths]
    folders = [run for run in runs if run is not None]
    axis, chosen = _choice(options, folders)
    if chosen is None and folders:
        models = [part for name in ("architecture", "dataloader") for part in _given(options, name)]
        raise choice_of(axis, paths, folders, models)
    wanted = iter(chosen or ())
    one, other = (path if run is None else run.find(axis, next(wanted)) for path, run in zip(paths, runs, strict=True))
    return one, other


def _choice(options: Any, folders: Sequence[RunBanks]) -> tuple[Axis, list[str] | None]:
    """Return what names banks, and the name for each folder; None if the user gave none.

    Raises:
        ValueError: There are more names than folders.
    """
    by_steps = options.step is not None or (options.epoch is None and any(run.is_by_steps for run in folders))
    axis: Axis = "step" if by_steps else "epoch"
    chosen: list[str] | None = options.epoch if options.step is None else options.step
    if chosen is None:
        return axis, None
    if not folders:
        raise ValueError(f"--{axis} chooses banks in the folders of runs, but no path is a folder")
    if len(chosen) > len(folders):
        raise ValueError(f"--{axis} takes one value for each folder, but got {len(chosen)} for {len(folders)}")
    return axis, chosen if len(chosen) == len(folders) else chosen * 2


def _given(options: Any, name: str) -> list[str]:
    """Return an option as the user gave it; nothing if it was not given."""
    value = getattr(options, name)
    return [] if value is None else [f"--{name}", value]
