"""Read the comparisons of event files, and check them. This module does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, NamedTuple

from lightning_cka.runtime.json_text import parse_json
from lightning_cka.view.packing import MOST_BYTES, check_integers, inflated, unpacked_json

PLUGIN = "lightning_cka"
"""Name under which TensorBoard finds the events."""

EVENT_FORMAT = 1
"""Version of the form of events."""

_PER_RESULT = ("epochs", "steps", "samples", "batches", "effective", "factors", "means")
"""Fields of a block that have one number for each result."""

_LAYERS_MOST = 10_000


class Event(NamedTuple):
    """One comparison of an event file.

    Attributes:
        key: The logged key of the reference and the measure.
        series: Its series, with one block of one result; see `lightning_cka.view.payload`.
        flags: The rows of its flags.
    """

    key: str
    series: dict[str, Any]
    flags: list[list[Any]]

    @property
    def block(self) -> dict[str, Any]:
        """The block of its series."""
        block: dict[str, Any] = self.series["blocks"][0]
        return block

    @property
    def moment(self) -> tuple[float, float]:
        """Step and epoch, which sort events by time. Unknown ones are -1."""
        step, epoch = self.block["steps"][0], self.block["epochs"][0]
        return -1 if step is None else step, -1 if epoch is None else epoch


def read_event(content: bytes) -> Event:
    """Read what `lightning_cka.view.event_content.event_content` returned.

    Args:
        content: The bytes.

    Raises:
        ValueError: They are damaged, have another form, or were written by a later version.
    """
    found = parse_json(inflated(content, MOST_BYTES))
    _expect(isinstance(found, dict), "an object")
    if (version := found.get("format")) != EVENT_FORMAT:
        raise ValueError(f"expected format {EVENT_FORMAT}, got {str(version)[:20]}; install a newer lightning-cka")
    _expect(_is_text(found.get("key")), "a key")
    series = found.get("series")
    _expect(isinstance(series, dict), "a series")
    _expect(all(_is_text(series.get(name)) for name in ("reference", "measure", "flags")), "names and flags")
    _expect(isinstance(series.get("self"), bool), "whether a model is compared with itself")
    _expect(_are(series.get("blocks"), lambda block: isinstance(block, dict), 1), "one block")
    _check_block(series["blocks"][0])
    if (ceiling := series.get("ceiling")) is not None:
        _expect(isinstance(ceiling, dict) and _is_text(ceiling.get("label")), "a ceiling with a label")
        _expect(isinstance(ceiling.get("layers"), dict), "layers of the ceiling")
        _expect(all(_are(row, _is_number_or_none, 3) for row in ceiling["layers"].values()), "three numbers by layer")
    flags = unpacked_json(series["flags"])
    _expect(_are(flags, _is_flag), "flags with a layer, a reason and a sentence")
    return Event(found["key"], series, flags)


def _check_block(block: dict[str, Any]) -> None:
    """Check the block of one result, also that its packed numbers are as many as its layers need."""
    _expect(_is_text(block.get("mean")), "the name of the mean")
    for name in _PER_RESULT:
        _expect(_are(block.get(name), _is_number_or_none, 1), f"one number as {name}")
    for name in ("model", "reference"):
        _expect(_are(block.get(name), _is_text, 1), f"one name of the {name}")
    rows, columns, pairs = (block.get(name) for name in ("rows", "columns", "pairs"))
    _expect(_are(rows, _is_text) and _are(columns, _is_text), "names of layers")
    assert isinstance(rows, list)
    assert isinstance(columns, list)
    _expect(max(len(rows), len(columns)) <= _LAYERS_MOST, f"at most {_LAYERS_MOST} layers")
    _expect(_are(pairs, lambda cell: _is_cell(cell, len(rows), len(columns))), "pairs of layers")
    assert isinstance(pairs, list)
    for name in ("values", "errors", "bounds"):
        if name == "values" or block.get(name) is not None:
            _check_integers(block.get(name), len(rows) * len(columns))
    if (paired := block.get("paired")) is not None:
        _check_paired(paired, len(pairs))


def _check_paired(paired: Any, num_pairs: int) -> None:
    _expect(isinstance(paired, dict), "records of paired layers")
    numbers = [paired.get(name) for name in ("batches", "scale", "decimals")]
    _expect(all(number is not None and _is_number_or_none(number) for number in numbers), "numbers of paired layers")
    _expect(_is_number_or_none(paired.get("factor")), "a factor of paired layers")
    _expect(_is_text(paired.get("probe")), "the probe set of paired layers")
    batches = paired["batches"]
    _expect(isinstance(batches, int) and 0 < batches <= MOST_BYTES, "a number of batches")
    _check_integers(paired.get("fine"), num_pairs)
    _check_integers(paired.get("left_out"), num_pairs * batches)


def _check_integers(text: Any, count: int) -> None:
    _expect(_is_text(text), "packed numbers")
    check_integers(text, count)


def _expect(is_right: bool, expected: str) -> None:
    if not is_right:
        raise ValueError(f"expected {expected}")


def _are(values: Any, is_right: Callable[[Any], bool], count: int | None = None) -> bool:
    return isinstance(values, list) and count in (None, len(values)) and all(map(is_right, values))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value))


def _is_cell(cell: Any, height: int, width: int) -> bool:
    is_pair = _are(cell, lambda place: isinstance(place, int) and not isinstance(place, bool), 2)
    return is_pair and 0 <= cell[0] < height and 0 <= cell[1] < width


def _is_flag(row: Any) -> bool:
    is_row = isinstance(row, list) and len(row) == 7
    return is_row and all(_is_text(row[place]) for place in (1, 3, 4, 5)) and _are(row[6], _is_text)
