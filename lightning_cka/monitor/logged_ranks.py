"""The effective ranks that are logged as scalars: their keys and their values."""

from __future__ import annotations

from collections.abc import Iterable
from math import nan

from lightning_cka.compare.pair import Outcome
from lightning_cka.compare.result import CKAResult
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.step_log import ScalarLog
from lightning_cka.runtime.file_names import distinct_names

SMALLEST_SHARE = "smallest_share"
"""Last part of the key of the smallest part of its largest rank so far that a layer still has."""

HISTORY = "history"
"""Last part of the key of the figure."""


def log_ranks(log: ScalarLog, settings: Settings, outcomes: Iterable[Outcome]) -> None:
    """Log the effective ranks of the model's layers, if they are to be. Every process must call this.

    Args:
        log: It gets them.
        settings: The monitor's settings.
        outcomes: New outcomes, which all have the same ranks.
    """
    outcome = next(iter(outcomes), None)
    if settings.log_ranks and outcome is not None:
        log.add(settings.ranks_prefix, rank_scalars(outcome.result))


def rank_scalars(result: CKAResult) -> dict[str, float]:
    """Return the effective rank of each layer, and `SMALLEST_SHARE`, by the last part of the logged key.

    All values of a comparison that failed are ``nan``.
    """
    names, ranks = rank_names(result.layers), result.ranks
    if ranks is None:
        return dict.fromkeys([*names.values(), SMALLEST_SHARE], nan)
    values = {names[layer]: rank.value for layer, rank in ranks.layers.items()}
    return values | {SMALLEST_SHARE: ranks.smallest_share}


def rank_names(layers: Iterable[str]) -> dict[str, str]:
    """Return the name of each layer in the keys; one that is called like another value has a number at the end."""
    return distinct_names(layers, (SMALLEST_SHARE, HISTORY))


def rank_keys(settings: Settings, layers: Iterable[str]) -> set[str]:
    """Return the keys of the effective ranks of these layers of the live model."""
    return {settings.ranks_prefix + name for name in (*rank_names(layers).values(), SMALLEST_SHARE)}
