"""`view_payload`: the results of runs as plain values in a compact form, which the scripts of the view read.

The payload has runs, a run has series, and a series has the results of one reference and one measure in order of time.
Results that share their layers and their probe set form a block, whose numbers are packed together:

``{"format", "title", "notes", "runs": [{"name", "series": [{"reference", "measure", "self", "blocks", "flags"}]}]}``

"flags" are packed rows ``[place of the result, layer, of the reference, reason, short text, sentence, samples]``. A
series with a seed ceiling has a "ceiling", too; see `lightning_cka.view.ceiling_content`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_cka.compare.flag_messages import flag_messages, flag_summary
from lightning_cka.compare.result import CKAResult
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.hsic.measure import measure_title
from lightning_cka.view.blocks import block_content, blocks_of
from lightning_cka.view.ceiling_content import ceiling_content
from lightning_cka.view.packing import FORMAT, packed_json

Runs = Mapping[str, Mapping[str, Sequence[CKAResult]]]
"""By name of the run and key of the reference: results in order of time."""


def view_payload(
    runs: Runs, *, title: str = "CKA", notes: Iterable[str] = (), ceilings: Sequence[SeedCeiling] = ()
) -> dict[str, Any]:
    """Return what the view shows, as plain values without ``nan``.

    Args:
        runs: The results. The key of a reference only tells series apart whose results have the same names.
        title: Title of the page.
        notes: Sentences to show above the view, such as which files could not be read.
        ceilings: Seed ceilings, for the series that they fit.
    """
    found = {
        name: _all_series({key: results for key, results in series.items() if results}, ceilings)
        for name, series in runs.items()
    }
    return payload_of_series(found, title=title, notes=notes)


def payload_of_series(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str, notes: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the payload of series that are plain values already.

    Args:
        runs: By name of the run: values of `packed_series`. Runs without series are left out.
        title: Title of the page.
        notes: Sentences to show above the view.
    """
    shown = [{"name": name, "series": list(series)} for name, series in runs.items() if series]
    return {"format": FORMAT, "title": title, "notes": list(notes), "runs": shown}


def _all_series(found: Mapping[str, Sequence[CKAResult]], ceilings: Sequence[SeedCeiling]) -> list[dict[str, Any]]:
    names = series_names(found)
    return [
        packed_series(names[key], results, map(block_content, blocks_of(results)), flag_rows(results))
        | ceiling_content(ceilings, results)
        for key, results in found.items()
    ]


def series_names(found: Mapping[str, Sequence[CKAResult]]) -> dict[str, str]:
    """Return the names of the references by key. Where names of two series agree, they have the key, too."""
    names = {key: (results[0].reference_name, results[0].measure_label) for key, results in found.items()}
    all_names = list(names.values())
    return {key: f"{name[0]} ({key})" if all_names.count(name) > 1 else name[0] for key, name in names.items()}


def packed_series(
    reference: str, results: Sequence[CKAResult], blocks: Iterable[Mapping[str, Any]], flags: Sequence[Sequence[Any]]
) -> dict[str, Any]:
    """Return the plain values of one series.

    Args:
        reference: Name of the reference.
        results: The results in order of time; at least one.
        blocks: Their numbers, from `block_content`. Blocks that differ only in time are joined by the scripts.
        flags: Their `flag_rows`.
    """
    return {
        "reference": reference,
        "measure": results[0].measure_label,
        "self": results[0].self_comparison,
        "blocks": list(blocks),
        "flags": packed_json(flags),
    }


def flag_rows(results: Sequence[CKAResult], first: int = 0) -> list[list[Any]]:
    """Return a row for each flag of consecutive results.

    Args:
        results: The results.
        first: Place of the first one in its series.
    """
    return [row for place, result in enumerate(results, first) for row in _flag_rows(place, result)]


def _flag_rows(place: int, result: CKAResult) -> list[list[Any]]:
    kind = result.diagnostics.sample_kind if result.diagnostics else "sample"
    rows = []
    for flag in result.flags:
        (short,) = flag_summary([flag], kind, measure_title(result.measure)) or [flag.reason]
        (sentence,) = flag_messages([flag], kind, result) or [short]
        samples = [f"{kind} {sample}" for sample in flag.samples]
        rows.append([place, flag.layer, flag.of_reference, flag.reason.replace("_", " "), short, sentence, samples])
    return rows
