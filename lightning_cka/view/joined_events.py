"""`joined_payload`: put the comparisons of event files together to a payload. This module does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from lightning_cka.view.events import PER_RESULT, Event
from lightning_cka.view.packing import FORMAT, joined_integers, packed_json


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
    flags = [[place, *row[1:]] for place, event in enumerate(events) for row in event.flags]
    blocks = [_block([event.block for event in block]) for _, block in groupby(events, _form)]
    return events[0].series | {"reference": reference, "blocks": blocks, "flags": packed_json(flags)}


def _form(event: Event) -> list[Any]:
    """Return what the results of one block share, such as the layers."""
    block, paired = event.block, event.block["paired"]
    has = [block[name] is not None for name in ("errors", "bounds")]
    of_pairs = paired and [paired[name] for name in ("batches", "scale", "factor", "decimals")]
    return [event.shared, block["rows"], block["columns"], block["pairs"], block["mean"], has, of_pairs]


def _block(blocks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put blocks of one result each together to one block."""
    first = blocks[0]
    joined: dict[str, Any] = {name: [each[name][0] for each in blocks] for name in (*PER_RESULT, "model", "reference")}
    for name in ("model", "reference"):
        joined[name] = joined[name][:1] if len(set(joined[name])) == 1 else joined[name]
    joined |= {name: _joined(blocks, name) for name in ("values", "errors", "bounds")}
    if (paired := first["paired"]) is not None:
        parts = [each["paired"] for each in blocks]
        joined["paired"] = paired | {name: _joined(parts, name) for name in ("fine", "left_out")}
    return first | joined


def _joined(parts: Sequence[dict[str, Any]], name: str) -> str | None:
    return None if parts[0][name] is None else joined_integers([part[name] for part in parts])
