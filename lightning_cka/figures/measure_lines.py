"""The values of several measures, for `plot_measures`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_cka.compare.banks import compare_banks
from lightning_cka.compare.result import CKAResult
from lightning_cka.decisions.ceiling import SeedCeiling, fitting_ceiling
from lightning_cka.figures.ceiling_lines import CeilingLines
from lightning_cka.figures.labels import elided, plain, value_label
from lightning_cka.figures.layer_history import LayerHistory, check_same_layers, layer_history
from lightning_cka.probe.bank import GramBank

ALL_MEASURES = ("cka", "mutual_knn", "rsa", "ridge")


class MeasureLine(NamedTuple):
    """One measure of all layers."""

    label: str
    results: Sequence[CKAResult]
    history: LayerHistory


def results_by_measure(
    results: Mapping[str, CKAResult | Sequence[CKAResult]] | GramBank | str | Path,
    reference: GramBank | str | Path | None,
) -> dict[str, Sequence[CKAResult]]:
    """Return the results of each measure, in order.

    Raises:
        ValueError: There is none, there is a bank without a reference, or there are results with one.
    """
    if not isinstance(results, Mapping):
        if reference is None:
            raise ValueError("plot_measures needs the banks of two models, or results by name of the measure")
        compared = compare_banks(results, reference, measures=ALL_MEASURES)
        return {name: [each] for name, each in compared.items()}
    if reference is not None:
        raise ValueError("reference= is the bank that another bank is compared with; results have a reference already")
    found: dict[str, Sequence[CKAResult]] = {
        key: [each] if isinstance(each, CKAResult) else list(each) for key, each in results.items()
    }
    if not found or not all(found.values()):
        raise ValueError("there is no result to draw: pass at least one for each measure")
    return found


def measure_lines(results: Mapping[str, Sequence[CKAResult]], level: float) -> list[MeasureLine]:
    """Return a line for each measure.

    Raises:
        ValueError: The layers differ.
    """
    labels = [value_label(each[-1]) for each in results.values()]
    if len(set(labels)) < len(labels):  # Such as two references: then the keys tell them apart.
        labels = [plain(elided(key)) for key in results]
    found = zip(labels, results.values(), strict=True)
    lines = [MeasureLine(label, each, layer_history(each, level)) for label, each in found]
    for line in lines:
        check_same_layers(lines[0].results[-1:], line.history.names)
    return lines


def ceilings_of_lines(
    lines: Sequence[MeasureLine], rows: Sequence[int], ceilings: Iterable[SeedCeiling], level: float
) -> list[CeilingLines | None]:
    """Return the seed ceiling of some layers for each measure; None for a measure that has none."""
    names, found = [lines[0].history.names[row] for row in rows], list(ceilings)
    last = [line.results[-1] for line in lines]
    return [CeilingLines.of(fitting_ceiling(found, result), result, names, level) for result in last]


def ceiling_entry(tops: Sequence[CeilingLines | None]) -> list[tuple[Any, str]]:
    """Return what the legend shows of ceilings; nothing if there are none."""
    return [top.legend_entry for top in tops if top is not None][:1]


def label_lines(lines: Sequence[MeasureLine], notes: Sequence[tuple[Any, str]]) -> list[str]:
    """Return the lines of the legend: the measures, and the texts of further entries."""
    return [*(line.label for line in lines), *(part for _, text in notes for part in text.split("\n"))]
