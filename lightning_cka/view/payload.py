"""`view_payload`: the results of runs as plain values in a compact form, which the scripts of the view read.

The payload has runs, a run has series, and a series has the results of one reference and one measure in order of time.
Results that share their layers and their probe set form a block, whose numbers are packed together:

``{"format", "title", "notes", "runs": [{"name", "series": [{"reference", "measure", "self", "blocks", "flags"}]}]}``

"flags" are packed rows ``[place of the result, layer, of the reference, reason, short text, sentence, samples]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_cka.compare.flag_messages import flag_messages, flag_summary
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.measure import measure_title
from lightning_cka.view.blocks import block_content, blocks_of
from lightning_cka.view.packing import FORMAT, packed_json

Runs = Mapping[str, Mapping[str, Sequence[CKAResult]]]
"""By name of the run and key of the reference: results in order of time."""


def view_payload(runs: Runs, *, title: str = "CKA", notes: Iterable[str] = ()) -> dict[str, Any]:
    """Return what the view shows, as plain values without ``nan``.

    Args:
        runs: The results. The key of a reference only tells series apart whose results have the same names.
        title: Title of the page.
        notes: Sentences to show above the view, such as which files could not be read.
    """
    shown = [
        {"name": name, "series": _all_series({key: found for key, found in series.items() if found})}
        for name, series in runs.items()
    ]
    return {"format": FORMAT, "title": title, "notes": list(notes), "runs": [run for run in shown if run["series"]]}


def _all_series(found: Mapping[str, Sequence[CKAResult]]) -> list[dict[str, Any]]:
    """Return the series of one run. Where names of two series agree, the reference's name has the key, too."""
    names = [(results[0].reference_name, results[0].measure_label) for results in found.values()]
    return [
        series_content(results, f"{name[0]} ({key})" if names.count(name) > 1 else name[0])
        for name, (key, results) in zip(names, found.items(), strict=True)
    ]


def series_content(results: Sequence[CKAResult], reference: str) -> dict[str, Any]:
    """Return the plain values of one series.

    Args:
        results: Results of one reference and one measure in order of time.
        reference: Name of the reference.
    """
    return {
        "reference": reference,
        "measure": results[0].measure_label,
        "self": results[0].self_comparison,
        "blocks": [block_content(block) for block in blocks_of(results)],
        "flags": packed_json([row for place, result in enumerate(results) for row in _flag_rows(place, result)]),
    }


def _flag_rows(place: int, result: CKAResult) -> list[list[Any]]:
    kind = result.diagnostics.sample_kind if result.diagnostics else "sample"
    rows = []
    for flag in result.flags:
        (short,) = flag_summary([flag], kind, measure_title(result.measure)) or [flag.reason]
        (sentence,) = flag_messages([flag], kind, result) or [short]
        samples = [f"{kind} {sample}" for sample in flag.samples]
        rows.append([place, flag.layer, flag.of_reference, flag.reason.replace("_", " "), short, sentence, samples])
    return rows
