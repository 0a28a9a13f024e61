"""`run_summary`: one table of a run: each layer's CKA, change, convergence, redundancy and flags, with intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import torch

from lightning_cka.compare.bank_series import BankSource
from lightning_cka.compare.intervals import interval, interval_of_result, too_few_batches
from lightning_cka.compare.layer_ranks import LayerRank
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import histories_of_training, moment_text
from lightning_cka.compare.tables import flag_reasons, table
from lightning_cka.decisions.convergence import DEFAULT_CONVERGED, convergence
from lightning_cka.decisions.layer_convergence import LAST_STATE, Convergence
from lightning_cka.decisions.redundancy import redundancy
from lightning_cka.decisions.settled import changes_between
from lightning_cka.runtime.spacing import spread_evenly

MAX_ROWS = 20
"""Largest number of layers that are all shown. Of more layers, 18 are shown, and a line says where all are."""

Columns = dict[str, dict[str, str]]
"""Texts by title of the column and by layer."""


@dataclass(frozen=True)
class RunSummary:
    """One line per layer of the model.

    Attributes:
        heading: What was compared, and what the numbers mean.
        layers: Names of the layers.
        columns: Texts by title of the column and by layer. A layer that has none is missing.
    """

    heading: str
    layers: tuple[str, ...]
    columns: Columns

    @property
    def header(self) -> tuple[str, ...]:
        """The titles of the columns after that of the layers."""
        return tuple(self.columns)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row for each layer, with the texts of the table."""
        return [
            {"layer": name} | {title: texts.get(name, "") for title, texts in self.columns.items()}
            for name in self.layers
        ]

    def text(self, folder: Path | None) -> str:
        """Return a table for a terminal.

        Args:
            folder: The folder of the run. If there are more than 20 layers, 18 evenly spaced ones are shown, and a line
                tells the command that shows all of this folder. None: all layers are shown.
        """
        rows, rest = self._shown(folder)
        return "\n".join([self.heading, "", table(("layer", *self.header), rows), *rest])

    def markdown(self, folder: Path | None) -> str:
        """Return `text` as a Markdown table."""
        rows, rest = self._shown(folder)
        titles = ["layer", *self.header]
        lines = [titles, ["---", *["---:"] * len(self.header)], *([f"`{name}`", *texts] for name, *texts in rows)]
        written = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        return "\n".join([self.heading, "", *written, *(f"\n{line}" for line in rest)])

    def _shown(self, folder: Path | None) -> tuple[list[list[str]], list[str]]:
        """Return the rows that are shown, and a line about the others."""
        layers: Sequence[str] = self.layers
        rest = []
        if folder is not None and len(layers) > MAX_ROWS:
            layers = spread_evenly(layers, MAX_ROWS - 2)
            rest = [f"{len(layers)} of {len(self.layers)} layers; all: lightning-cka summary {folder} --all"]
        return [[name, *(texts.get(name, "") for texts in self.columns.values())] for name in layers], rest


def run_summary(
    results: Mapping[str, Sequence[CKAResult]],
    banks: Sequence[BankSource] | None,
    fixed: Collection[str],
    *,
    tolerance: float = DEFAULT_CONVERGED,
    level: float = 0.95,
) -> RunSummary:
    """Return the summary of a run.

    Args:
        results: Results in order, by the name of the reference. Only those of training count.
        banks: Banks of the run in order of time, or their files. None: CKA with the last state is left out.
        fixed: Names of the references that do not move, for which a change tells whether a layer has converged.
        tolerance: As in `lightning_cka.convergence`.
        level: As in `lightning_cka.convergence`.

    Raises:
        ValueError: There is no result of training, or a number is out of range.
    """
    found = histories_of_training(results)
    if not found:
        raise ValueError("there are no results of training, which a summary needs: CKAMonitor writes them (.json)")
    judged = {name: history for name, history in found.items() if name in fixed}
    converged = convergence(judged, banks, tolerance, level) if judged else None
    columns: Columns = {}
    for name, history in found.items():
        if history[-1].self_comparison:
            columns[_title("1 - CKA to the next", name, found)] = _to_next(history[-1], level)
        else:
            columns |= _of_reference(name, history, converged if name in judged else None, level)
    if converged is not None and converged.last is not None:
        columns[f"{LAST_STATE}: since"] = _since(converged, LAST_STATE)
    last = [history[-1] for history in found.values()]
    columns |= _ranks(last, level)
    layers = tuple(dict.fromkeys(name for each in last for name in each.layers))
    columns["flags"] = {name: _flags(last, name) for name in layers}
    return RunSummary(_heading(last, tolerance if judged else None, level), layers, columns)


def _of_reference(name: str, history: Sequence[CKAResult], converged: Convergence | None, level: float) -> Columns:
    """Return the columns of one reference. If it does not move, they say whether layers have converged."""
    columns = {name: _values(history[-1], level)}
    if converged is not None:
        columns[f"{name}: change"] = _changes(history, level)
        columns[f"{name}: since"] = _since(converged, name)
    return columns


def _ranks(last: Sequence[CKAResult], level: float) -> Columns:
    """Return a column of effective ranks, if a result has them."""
    ranks = next((each.ranks for each in last if each.ranks is not None), None)
    if ranks is None:
        return {}
    return {"effective rank": {name: _rank(each, level) for name, each in ranks.layers.items()}}


def _title(title: str, name: str, found: Mapping[str, Sequence[CKAResult]]) -> str:
    """Return a title, with the name of the series if there are several of a model with itself."""
    several = sum(history[-1].self_comparison for history in found.values()) > 1
    return f"{title} ({name})" if several else title


def _heading(last: Sequence[CKAResult], tolerance: float | None, level: float) -> str:
    """Return two lines: what was compared, and what the numbers mean."""
    result, labels = last[0], {each.measure_label for each in last}
    what = labels.pop() if len(labels) == 1 else "several measures"
    moment = moment_text(result.epoch, result.step)
    numbers = "" if result.num_samples is None else f", {result.num_samples} samples in {result.num_batches} batches"
    line = f"Summary of {result.model_name}, {moment}: {what}{numbers}"
    if few := too_few_batches(result.effective_batches):
        return f"{line}\n{few}"
    meaning = f"±: half of the {100 * level:g} % interval"
    if tolerance is not None:
        meaning += f"; change: since the comparison before; since: within ±{tolerance:g} of the last, with confidence"
    return f"{line}\n{meaning}"


def _values(result: CKAResult, level: float) -> dict[str, str]:
    """Return CKA of each paired layer, with half of its interval."""
    low, high = interval_of_result(result, level)
    half = (high - low) / 2
    pairs = result.same_named_pairs()
    return {name: _with_half(float(result.matrix[cell]), float(half[cell])) for name, cell in pairs.items()}


def _changes(history: Sequence[CKAResult], level: float) -> dict[str, str]:
    """Return the change of each layer since the comparison before, with half of its interval."""
    if len(history) < 2:
        return {}
    changes = changes_between(history[-1], history[-2], level)
    return {name: _with_half(each.value, (each.high - each.low) / 2, "+") for name, each in changes.items()}


def _to_next(result: CKAResult, level: float) -> dict[str, str]:
    """Return 1 - CKA of each layer with the next one, with half of its interval."""
    steps = redundancy(result, level=level).consecutive
    return {step.before: _with_half(step.change, (step.high - step.low) / 2) for step in steps}


def _rank(rank: LayerRank, level: float) -> str:
    """Return an effective rank, with half of its interval."""
    zero, error = torch.tensor((0.0, rank.standard_error), dtype=torch.float64, device="cpu")
    half = float(interval(zero, error, max(rank.num_batches, 1), level)[1])
    return f"{rank.value:.1f}" if isnan(half) else f"{rank.value:.1f} ± {half:.1f}"


def _since(found: Convergence, compared_with: str) -> dict[str, str]:
    return {each.layer: each.since for each in found.found if each.compared_with == compared_with}


def _flags(results: Sequence[CKAResult], name: str) -> str:
    reasons = [flag_reasons(result, name) for result in results if name in result.layers]
    return ", ".join(dict.fromkeys(reason for each in reasons for reason in each.split(", ") if reason))


def _with_half(value: float, half: float = nan, sign: str = "") -> str:
    """Return a value, and half of its interval if this is known."""
    text = f"{value:{sign}.3f}"
    return text if isnan(half) else f"{text} ± {half:.3f}"
