"""`EventReader`: the comparisons of all runs in a log folder of TensorBoard, which are read once and put together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any, NamedTuple

from tensorboard.data.provider import RunTagFilter

from lightning_cka.runtime.files import digest
from lightning_cka.view.events import PLUGIN, Event, read_event
from lightning_cka.view.joined_events import joined_payload

_TAGS_AT_ONCE = 200
"""TensorBoard's data server limits the size of an answer."""

_MOST_NOTES = 20

Place = tuple[str, str]
"""A run and a tag."""


class _Found(NamedTuple):
    """What was read at a place: a comparison, or why there is none."""

    time: float
    event: Event | None
    problem: str = ""


class EventReader:
    """Reads comparisons through TensorBoard, and keeps them.

    Args:
        provider: TensorBoard's data provider.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._found: dict[str, dict[Place, _Found]] = {}
        self._answers: dict[str, tuple[str, str]] = {}
        self._lock = Lock()

    def answer(self, context: Any, experiment: str, known: str) -> str:
        """Return the payload of all runs as JSON, with a mark of what it holds.

        Args:
            context: TensorBoard's context of the request.
            experiment: TensorBoard's name of the log folder.
            known: The mark of an earlier answer; "" for none.

        Returns:
            JSON of ``{"mark", "payload"}``. The payload is None if nothing has changed since the earlier answer.
        """
        with self._lock:
            mark = self._update(context, experiment)
            if mark == known:
                return json.dumps({"mark": mark, "payload": None})
            if self._answers.get(experiment, ("",))[0] != mark:
                payload = self._payload(self._starts(context, experiment), self._found[experiment])
                self._answers[experiment] = mark, json.dumps({"mark": mark, "payload": payload})
            return self._answers[experiment][1]

    def _update(self, context: Any, experiment: str) -> str:
        """Read what is new, forget what is gone, and return a hash of the times of all comparisons."""
        listed = self._provider.list_tensors(context, experiment_id=experiment, plugin_name=PLUGIN)
        times = {(run, tag): series.max_wall_time for run, tags in listed.items() for tag, series in tags.items()}
        before = self._found.get(experiment, {})
        kept = {place: found for place, found in before.items() if times.get(place) == found.time}
        self._found[experiment] = kept
        for run, tags in listed.items():
            new = [tag for tag in tags if (run, tag) not in kept]
            for start in range(0, len(new), _TAGS_AT_ONCE):
                kept.update(self._read(context, experiment, run, new[start : start + _TAGS_AT_ONCE]))
        return digest(json.dumps(sorted((*place, found.time) for place, found in kept.items())).encode())

    def _read(self, context: Any, experiment: str, run: str, tags: list[str]) -> Iterator[tuple[Place, _Found]]:
        data = self._provider.read_tensors(
            context,
            experiment_id=experiment,
            plugin_name=PLUGIN,
            downsample=1,  # The last one: a comparison that was repeated after a restart.
            run_tag_filter=RunTagFilter([run], tags),
        )
        for tag, values in data.get(run, {}).items():
            for value in values[-1:]:
                yield (run, tag), _checked(value.wall_time, value.numpy)

    def _starts(self, context: Any, experiment: str) -> dict[str, float]:
        runs = self._provider.list_runs(context, experiment_id=experiment)
        return {run.run_name: run.start_time or 0.0 for run in runs}

    def _payload(self, starts: Mapping[str, float], found: Mapping[Place, _Found]) -> dict[str, Any]:
        """Return the payload. The newest run comes first, because the view shows the first ones at the start."""
        events: dict[str, list[Event]] = {}
        problems = []
        for (run, tag), each in sorted(found.items(), key=lambda item: item[1].time):
            if each.event is not None:
                events.setdefault(run, []).append(each.event)
            else:
                problems.append(f"{run}, {tag}: {each.problem}")
        more = len(problems) - _MOST_NOTES
        notes = problems[:_MOST_NOTES] + ([f"{more} more cannot be shown"] if more > 0 else [])
        runs = {run: events[run] for run in sorted(events, key=lambda run: (-starts.get(run, 0.0), run))}
        return joined_payload(runs, title="CKA", notes=notes)


def _checked(time: float, value: Any) -> _Found:
    try:
        if value.dtype != object or value.shape not in ((), (1,)):
            raise ValueError(f"expected one text, got numbers of the shape {value.shape}")
        content = value.item()
        return _Found(time, read_event(content if isinstance(content, bytes) else str(content).encode()))
    except ValueError as error:
        return _Found(time, None, f"this comparison cannot be shown: {error}")
