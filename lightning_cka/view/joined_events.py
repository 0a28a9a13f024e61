"""`joined_payload`: put the comparisons of event files together to a payload. This module does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_cka.view.events import Event
from lightning_cka.view.packing import FORMAT, packed_json


def joined_payload(runs: Mapping[str, Sequence[Event]], *, title: str, notes: Iterable[str] = ()) -> dict[str, Any]:
    """Return what `lightning_cka.view.payload.view_payload` returns for the results themselves.

    Args:
        runs: By name of the run: its events in the order in which they were written.
        title: Title of the view.
        notes: Sentences to show above the view.
    """
    shown = [{"name": name, "series": _all_series(events)} for name, events in runs.items() if events]
    return {"format": FORMAT, "title": title, "notes": list(notes), "runs": shown}


def _all_series(events: Sequence[Event]) -> list[dict[str, Any]]:
    by_key: dict[str, list[Event]] = {}
    for event in events:
        by_key.setdefault(event.key, []).append(event)
    kept = {key: _without_abandoned(found) for key, found in by_key.items()}
    names = [_name(found) for found in kept.values()]
    return [
        _series(found, f"{name[0]} ({key.rstrip('/')})" if names.count(name) > 1 else name[0])
        for name, (key, found) in zip(names, kept.items(), strict=True)
    ]


def _name(events: Sequence[Event]) -> tuple[str, str]:
    return events[0].series["reference"], events[0].series["measure"]


def _without_abandoned(events: Sequence[Event]) -> list[Event]:
    """Leave out what was written before a run went back to an earlier checkpoint, and is later than this."""
    kept: list[Event] = []
    for event in reversed(events):
        if not kept or event.moment < kept[-1].moment:
            kept.append(event)
    return kept[::-1]


def _series(events: Sequence[Event], reference: str) -> dict[str, Any]:
    """Return one series. The scripts join its blocks."""
    flags = [[place, *row[1:]] for place, event in enumerate(events) for row in event.flags]
    blocks = [event.block for event in events]
    return events[0].series | {"reference": reference, "blocks": blocks, "flags": packed_json(flags)}
