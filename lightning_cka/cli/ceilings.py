"""The option ``--ceiling``: banks of other seeds, for the CKA that trainings reach that differ in their seed alone."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cka.cli.argument_types import kernel_of, measure_of
from lightning_cka.cli.run_banks import LAST, RunBanks
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.tables import table
from lightning_cka.hsic.measure import measure_title

if TYPE_CHECKING:
    from lightning_cka.decisions.ceiling import SeedCeiling


def ceiling_of(paths: Sequence[Path] | None, results: Sequence[CKAResult]) -> SeedCeiling | None:
    """Return the seed ceiling by the measure of a result; None without banks or results.

    Args:
        paths: Banks, or folders of runs, whose last banks are taken.
        results: The last one is the result.

    Raises:
        ValueError: The banks cannot be compared, do not fit the result, or it has a measure with unknown parameters.
    """
    if not paths or not results:
        return None
    result = results[-1]
    from lightning_cka.decisions.seed_ceiling import seed_ceiling

    try:
        measure, kernel = measure_of(_as_argument(result.measure)), kernel_of(_as_argument(result.kernel))
    except ArgumentTypeError as error:
        raise ValueError(f"--ceiling cannot compute the result's measure: {error}") from error
    ceiling = seed_ceiling(
        [bank_in(path) for path in paths],
        measure=measure,
        kernel=kernel,
        unbiased=result.unbiased or measure != "cka",
        progress_bar=shows_progress(),
    )
    ceiling.check_fits(result)
    return ceiling


def ceilings_of_measures(paths: Sequence[Path] | None, histories: Sequence[Sequence[CKAResult]]) -> list[SeedCeiling]:
    """Return `ceiling_of` for each measure of the results, without those of a model with itself."""
    found: dict[tuple[str, str, bool], SeedCeiling | None] = {}
    for results in histories:
        if results and not results[-1].self_comparison:
            last = results[-1]
            key = last.measure, last.kernel, last.unbiased
            found[key] = found.get(key) or ceiling_of(paths, results)
    return [ceiling for ceiling in found.values() if ceiling is not None]


def ceiling_table(ceiling: SeedCeiling, result: CKAResult, level: float = 0.95) -> str:
    """Return a table with one row per layer: its value, the seed ceiling, and how far below the ceiling it is."""
    rows = (
        (
            row["layer"],
            f"{row[result.measure]:.3f}",
            f"{row['ceiling']:.3f}",
            f"{row['below']:+.3f}",
            "" if isnan(row["low"]) else f"{row['low']:+.3f} to {row['high']:+.3f}",
        )
        for row in ceiling.below(result, level)
    )
    header = ("layer", measure_title(result.measure), "ceiling", "below it by", f"{100 * level:g} % interval")
    chance = "" if ceiling.chance is None else f"; chance: {ceiling.chance:g}"
    heading = f"seed ceiling: mean over the pairs of {ceiling.num_seeds} seeds{chance}"
    return "\n\n".join(filter(None, [heading, table(header, rows), ceiling.problem]))


def bank_in(path: Path, axis: Any = "epoch", moment: str = LAST) -> Path:
    """Return the bank of a moment in the folder of a run, the last one by default; a file as it is."""
    return RunBanks.in_folder(path).find(axis, moment) if path.is_dir() else path


def shows_progress() -> bool:
    """Whether somebody can see a progress bar."""
    return sys.stderr.isatty()


def _as_argument(name: str) -> str:
    """Return the text of an option for the name of a measure or a kernel, such as "rbf:0.2" for "rbf(0.2)"."""
    return name.replace("(", ":").removesuffix(")")
