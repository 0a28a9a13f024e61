"""What to do instead, if ``compare`` is given results, which already have their values."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from lightning_cka.cli.choices import ChoiceNeededError
from lightning_cka.cli.sources import Kind
from lightning_cka.compare.run_files import BANK_SUFFIX, parse_moment


def advice_on_results(kinds: Mapping[Path, Kind]) -> Exception:
    """Return the error for two paths of which at least one is a result.

    Args:
        kinds: The kind of each path; one path if both are the same.
    """
    results = [path for path, kind in kinds.items() if kind is Kind.RESULT]
    if len(results) == 1:
        return ValueError(
            f"{str(results[0])!r} is a result: it has CKA values, but no Gram matrices. Pass two banks, "
            f"runs or checkpoints, or two results to `lightning-cka difference`. `lightning-cka show "
            f"{shlex.quote(str(results[0]))}` prints it"
        )
    commands = [["difference", *map(str, results)], *(["show", str(path)] for path in results)]
    banks = [bank for path in results if (bank := _bank_of(path)) is not None]
    if len(banks) == len(results):
        commands.insert(1, ["compare", *map(str, banks)])
    return ChoiceNeededError(
        "compare takes banks, runs or checkpoints, but these are results: their CKA is already computed",
        [
            "difference: by how much CKA differs between two results",
            "show: the values of one result",
            *(["compare: CKA between the networks of both results, from their banks"] if len(banks) == 2 else []),
        ],
        commands,
    )


def _bank_of(result: Path) -> Path | None:
    """Return the bank of the live model behind a result of a run, if it was kept."""
    if parse_moment(result.stem) is None:
        return None
    name = f"{result.stem}{BANK_SUFFIX}"
    return next((path for folder in result.parents[1:3] if (path := folder / "banks" / name).is_file()), None)
