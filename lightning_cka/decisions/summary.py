"""`run_summary`: one table of a run: each layer's CKA, change, convergence, redundancy and flags, with intervals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path
from typing import Any

import torch

from lightning_cka.compare.bank_series import BankSource
from lightning_cka.compare.intervals import interval, interval_of_result, too_few_batches
from lightning_cka.compare.layer_ranks import LayerRank
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import histories_of_training, moment_text
from lightning_cka.compare.tables import flag_reasons, samples_text, table
from lightning_cka.decisions.ceiling import SeedCeiling, fitting_ceiling
from lightning_cka.decisions.convergence import DEFAULT_CONVERGED, convergence
from lightning_cka.decisions.layer_convergence import LAST_STATE, Convergence
from lightning_cka.decisions.redundancy import redundancy
from lightning_cka.decisions.settled import changes_between
from lightning_cka.hsic.measure import measure_title
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
        further: Titles of the columns of all measures but the first, with the measures' names.
    """

    heading: str
    layers: tuple[str, ...]
    columns: Columns
    further: Mapping[str, str] = field(default_factory=dict)

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
            folder: The folder of the run. The first measure is shown, and of more than 20 layers 18 evenly spaced ones.
                If that is not all, a line tells the command that shows all of this folder. None: all is shown.
        """
        titles, rows, rest = self._shown(folder)
        return "\n".join([self.heading, "", table(titles, rows), *rest])

    def markdown(self, folder: Path | None) -> str:
        """Return `text` as a Markdown table."""
        titles, rows, rest = self._shown(folder)
        lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *([f"`{name}`", *texts] for name, *texts in rows)]
        written = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        return "\n".join([self.heading, "", *written, *(f"\n{line}" for line in rest)])

    def _shown(self, folder: Path | None) -> tuple[list[str], list[list[str]], list[str]]:
        """Return the titles and the rows that are shown, and a line about the others."""
        layers, columns, rest = self.layers, self.columns, []
        if folder is not None and len(layers) > MAX_ROWS:
            layers = tuple(spread_evenly(layers, MAX_ROWS - 2))
            rest.append(f"{len(layers)} of {len(self.layers)} layers")
        if folder is not None and self.further:
            columns = {title: texts for title, texts in columns.items() if title not in self.further}
            rest.append(f"without {', '.join(dict.fromkeys(self.further.values()))}")
        rows = [[name, *(texts.get(name, "") for texts in columns.values())] for name in layers]
        return (
            ["layer", *columns],
            rows,
            [f"{', '.join(rest)}; all: lightning-cka summary {folder} --all"] if rest else [],
        )


def run_summary(
    results: Mapping[str, Sequence[CKAResult]],
    banks: Sequence[BankSource] | None,
    fixed: Collection[str],
    *,
    tolerance: float = DEFAULT_CONVERGED,
    level: float = 0.95,
    ceilings: Iterable[SeedCeiling] = (),
) -> RunSummary:
    """Return the summary of a run.

    Args:
        results: Results in order, by the name of the reference. Only those of training count.
        banks: Banks of the run in order of time, or their files. None: CKA with the last state is left out.
        fixed: Names of the references that do not move, for which a change tells whether a layer has converged.
        tolerance: As in `lightning_cka.convergence`.
        level: As in `lightning_cka.convergence`.
        ceilings: Seed ceilings, for the measures that they are of.

    Raises:
        ValueError: There is no result of training, or a number is out of range.
    """
    found = histories_of_training(results)
    if not found:
        raise ValueError("there are no results of training, which a summary needs: CKAMonitor writes them (.json)")
    judged = {name: history for name, history in found.items() if name in fixed}
    converged = convergence(judged, banks, tolerance, level) if judged else None
    columns: Columns = {}
    further: dict[str, str] = {}
    labels = list(dict.fromkeys(history[-1].measure_label for history in found.values()))
    tops = list(ceilings)
    for label in labels:
        histories = {name: each for name, each in found.items() if each[-1].measure_label == label}
        own = _of_references(histories, converged, level)
        own |= _of_self(histories, label if len(labels) > 1 else "", level)
        own |= _of_ceiling(histories, tops, f" ({label})" if len(labels) > 1 else "", level)
        columns |= own
        further |= dict.fromkeys(own if label != labels[0] else (), label)
    if converged is not None and converged.last is not None:
        columns[f"{LAST_STATE}: since"] = _since(converged, LAST_STATE)
    last = [history[-1] for history in found.values()]
    columns |= _ranks(last, level)
    layers = tuple(dict.fromkeys(name for each in last for name in each.layers))
    columns["flags"] = {name: _flags(last, name) for name in layers}
    return RunSummary(_heading(last, tolerance if judged else None, level), layers, columns, further)


def _of_references(
    histories: Mapping[str, Sequence[CKAResult]], converged: Convergence | None, level: float
) -> Columns:
    """Return the columns of all references. Of those that do not move, they say whether layers have converged."""
    columns: Columns = {}
    for name, history in histories.items():
        if history[-1].self_comparison:
            continue
        columns[name] = _values(history[-1], level)
        if converged is not None and name in converged.results:
            columns[f"{name}: change"] = _changes(history, level)
            columns[f"{name}: since"] = _since(converged, name)
    return columns


def _ranks(last: Sequence[CKAResult], level: float) -> Columns:
    """Return a column of effective ranks, if a result has them."""
    ranks = next((each.ranks for each in last if each.ranks is not None), None)
    if ranks is None:
        return {}
    return {"effective rank": {name: _rank(each, level) for name, each in ranks.layers.items()}}


def _of_self(histories: Mapping[str, Sequence[CKAResult]], label: str, level: float) -> Columns:
    """Return a column of the change to the next layer for each series of a model with itself, by one measure."""
    last = {name: history[-1] for name, history in histories.items() if history[-1].self_comparison}
    return {
        f"1 - {label or measure_title(each.measure)} to the next{f' ({name})' if len(last) > 1 else ''}": _to_next(
            each, level
        )
        for name, each in last.items()
    }


def _of_ceiling(
    histories: Mapping[str, Sequence[CKAResult]], ceilings: Iterable[SeedCeiling], ending: str, level: float
) -> Columns:
    """Return a column of the seed ceiling, if there is one for these results."""
    result = next((history[-1] for history in histories.values() if not history[-1].self_comparison), None)
    if result is None or (ceiling := fitting_ceiling(ceilings, result)) is None:
        return {}
    halves = (ceiling.bounds(level)[1] - ceiling.values).tolist()
    texts = map(_with_half, ceiling.values.tolist(), halves)
    return {f"seed ceiling{ending}": dict(zip(ceiling.layers, texts, strict=True))}


def _heading(last: Sequence[CKAResult], tolerance: float | None, level: float) -> str:
    """Return two lines: what was compared, and what the numbers mean."""
    result, what = last[0], ", ".join(dict.fromkeys(each.measure_label for each in last))
    moment = moment_text(result.epoch, result.step)
    line = f"Summary of {result.model_name}, {moment}: {', '.join(filter(None, (what, samples_text(result))))}"
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
    text = "nan" if isnan(value) else f"{value:{sign}.3f}"
    return text if isnan(half) else f"{text} ± {half:.3f}"
