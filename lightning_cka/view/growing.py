"""`GrowingPayload`: the payload of a run that goes on, whose earlier results are packed only once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any

from lightning_cka.compare.result import CKAResult
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.view.blocks import block_content, blocks_of
from lightning_cka.view.ceiling_content import ceiling_content
from lightning_cka.view.payload import flag_rows, packed_series, payload_of_series, series_names

PART = 20
"""Number of results that are packed together. Only the last, incomplete part is packed again."""


class GrowingPayload:
    """Makes the payload of one run again and again while its histories grow.

    It keeps the packed form of earlier results, which takes as much as the page.

    Args:
        name: Name of the run.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._histories: dict[str, _History] = {}

    def payload(
        self, results: Mapping[str, Sequence[CKAResult]], ceilings: Sequence[SeedCeiling] = ()
    ) -> dict[str, Any]:
        """Return the payload, as `view_payload` does.

        Args:
            results: All results of the run in order of time, by key of the reference.
            ceilings: Seed ceilings, for the series that they fit.
        """
        found = {key: history for key, history in results.items() if history}
        names = series_names(found)
        series = [
            self._series(key, names[key], history) | ceiling_content(ceilings, history)
            for key, history in found.items()
        ]
        return payload_of_series({self._name: series}, title=f"CKA of {self._name}")

    def _series(self, key: str, name: str, results: Sequence[CKAResult]) -> dict[str, Any]:
        history = self._histories.get(key)
        if history is None or not history.is_start_of(results):
            history = self._histories[key] = _History()
        blocks, flags = history.add(results)
        return packed_series(name, results, blocks, flags)


class _History:
    """The packed results of one series, in complete parts."""

    def __init__(self) -> None:
        self._packed: list[CKAResult] = []
        self._blocks: list[dict[str, Any]] = []
        self._flags: list[list[Any]] = []

    def is_start_of(self, results: Sequence[CKAResult]) -> bool:
        count = len(self._packed)
        return len(results) >= count and all(map(is_, self._packed, results[:count]))

    def add(self, results: Sequence[CKAResult]) -> tuple[list[dict[str, Any]], list[list[Any]]]:
        """Pack the results after those that are packed, and keep complete parts.

        Returns:
            Blocks and flags of all results.
        """
        while len(results) - len(self._packed) >= PART:
            part = results[len(self._packed) : len(self._packed) + PART]
            self._blocks += map(block_content, blocks_of(part))
            self._flags += flag_rows(part, len(self._packed))
            self._packed += part
        rest = results[len(self._packed) :]
        blocks = [block_content(block) for block in blocks_of(rest)]
        return self._blocks + blocks, self._flags + flag_rows(rest, len(self._packed))
