"""`convergence`: since when each layer has converged, by its last state and by its distance to references."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan
from pathlib import Path

from lightning_cka.compare.bank_series import BankSource
from lightning_cka.compare.intervals import batches_to_decide, too_few_batches
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import short_moment_text
from lightning_cka.decisions.last_state import SimilarityToLast, similarity_to_last
from lightning_cka.decisions.layer_convergence import LAST_STATE, Convergence, LayerConvergence
from lightning_cka.decisions.run_results import fixed_references, read_run
from lightning_cka.decisions.settled import Change, changes_between, check_tolerance, settled_since
from lightning_cka.hsic.standard_error import check_level
from lightning_cka.probe.bank import open_bank
from lightning_cka.runtime.text import shortened

DEFAULT_CONVERGED = 0.02
"""Change of CKA that does not matter."""


def convergence(
    results: str | Path | Sequence[CKAResult] | Mapping[str, Sequence[CKAResult]],
    banks: str | Path | Sequence[BankSource] | None = None,
    tolerance: float = DEFAULT_CONVERGED,
    level: float = 0.95,
) -> Convergence:
    """Return since when each layer has converged, with confidence, by two criteria.

    - Its CKA with its own last state is above ``1 - tolerance``, with the lower end of its confidence interval. This
      needs the banks of a run: unbiased linear CKA is computed from them, whatever the measure of the results is.
    - The change of its CKA with a reference, from then to the last moment, lies inside ``[-tolerance, tolerance]`` with
      its confidence interval. That is equivalence, not a lack of significance.

    Both hold from that moment on at all moments. The last moment itself proves nothing, so it does not count.

    Args:
        results: Results of one reference in order, or by names of references, such as ``monitor.results``; or the
            folder of a run, with its results and banks. Results of training are used, except those of a model with
            itself and of references that move ("previous").
        banks: The banks of the run in order of time, their files, or their folder. None: no banks, or those in the
            folder of the run.
        tolerance: Change of CKA that does not matter, in (0, 1).
        level: Level of the confidence intervals, in (0, 1).

    Raises:
        ValueError: There is nothing to judge by, the banks do not belong together, or a number is out of range.
        FileNotFoundError: There is no such folder.

    Example:
        >>> import torch
        >>> from lightning_cka import GramBank, convergence
        >>> _ = torch.manual_seed(0)
        >>> batches = [torch.randn(64, 16) for _ in range(8)]
        >>> net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
        >>> banks = []
        >>> for size in (1.0, 1.0, 0.01):
        ...     net[2].weight.data += size * torch.randn(8, 32)  # Training.
        ...     banks.append(GramBank.from_model(net, batches, progress_bar=False))
        >>> found = convergence([], banks)
        >>> found.of("0").since, found.of("2").place
        ('moment 0', 1)
    """
    check_tolerance(tolerance)
    check_level(level)
    if isinstance(results, str | Path):
        run = read_run(results)
        results, banks = run.results, run.banks if banks is None else banks
    if not isinstance(results, Mapping):
        results = {results[-1].reference_name: results} if results else {}
    if isinstance(banks, str | Path):
        banks = read_run(banks).banks
    histories = fixed_references(results)
    last, notes = _last_state(histories, banks)
    if not histories and last is None:
        raise ValueError(f"there are no results of a reference that does not move, and {notes[0]}")
    found = [each for name, history in histories.items() for each in _by_reference(name, history, tolerance, level)]
    for name, history in histories.items():
        notes += _missing(name, history)
    if last is not None:
        found += _by_last_state(last, tolerance, level)
    batches = {name: history[-1].effective_batches for name, history in histories.items()}
    if last is not None:
        batches[LAST_STATE] = last.effective_batches
    notes += _undefined(histories, last) + _more_batches(found, batches, tolerance, level)
    layers = tuple(dict.fromkeys(each.layer for each in found))
    return Convergence(layers, tolerance, level, histories, last, tuple(found), tuple(dict.fromkeys(notes)))


def _last_state(
    histories: Mapping[str, Sequence[CKAResult]], banks: Sequence[BankSource] | None
) -> tuple[SimilarityToLast | None, list[str]]:
    """Return the similarity to the last state, or None if banks are missing; and what is missing."""
    how = "CKAMonitor(save_banks=True) keeps the bank of each comparison"
    if not banks or len(banks) < 2:
        number = "are no banks" if not banks else "is one bank only"
        return None, [f"CKA with the last state is unknown, because there {number}: {how}"]
    headers = [open_bank(bank, batches=()) for bank in banks]
    kept = {(header.epoch, header.step) for header in headers}
    compared = dict.fromkeys((each.epoch, each.step) for history in histories.values() for each in history)
    latest = max(compared, key=lambda when: -1 if when[1] is None else when[1], default=None)
    if latest is not None and latest not in kept:
        text = short_moment_text(*latest)
        return None, [f"CKA with the last state is unknown, because the bank of {text} was not kept: {how}"]
    missing = sum(when not in kept for when in compared)
    notes = [f"{missing} of {len(compared)} comparisons have no bank and are not looked at: {how}"] if missing else []
    return similarity_to_last(banks), notes


def _by_last_state(last: SimilarityToLast, tolerance: float, level: float) -> Iterable[LayerConvergence]:
    since = last.converged_since(tolerance, level)
    low, high = last.bounds(level)
    for row, (name, place) in enumerate(since.items()):
        shown = len(last.moments) - 2 if place is None else place
        value = Change(*(float(each[row, shown]) for each in (last.values, low, high)))
        yield _found(name, LAST_STATE, place, last.when, value)


def _by_reference(
    reference: str, history: Sequence[CKAResult], tolerance: float, level: float
) -> Iterable[LayerConvergence]:
    when = [(each.epoch, each.step) for each in history]
    changes: dict[int, dict[str, Change]] = {}
    for name, place in settled_since(history, tolerance, level).items():
        shown = len(history) - 2 if place is None else place
        if shown not in changes:
            changes[shown] = changes_between(history[-1], history[shown], level) if shown >= 0 else {}
        yield _found(name, reference, place, when, changes[shown].get(name, Change(nan, nan, nan)))


def _found(
    layer: str,
    compared_with: str,
    place: int | None,
    when: Sequence[tuple[int | None, int | None]],
    value: Change,
) -> LayerConvergence:
    epoch, step = (None, None) if place is None else when[place]
    converged = None if isnan(value.low) else place is not None
    return LayerConvergence(layer, compared_with, converged, place, epoch, step, *value)


def _missing(reference: str, history: Sequence[CKAResult]) -> list[str]:
    """Return why changes with a reference are unknown."""
    if len(history) < 2:
        return [f"there is one comparison with {reference!r}: convergence needs at least one more"]
    without = sum(each.left_out_batches is None for each in history)
    if without:
        problem = f"{without} of {len(history)} results with {reference!r} have no records of their batches"
        return [f"{problem}, which intervals of changes need: they are of an older version, or their comparison failed"]
    few = too_few_batches(history[-1].effective_batches)
    return [few] if few else []


def _undefined(histories: Mapping[str, Sequence[CKAResult]], last: SimilarityToLast | None) -> list[str]:
    """Return which layers have no CKA at the last moment."""
    values = [pair for history in histories.values() for pair in history[-1].same_named().items()]
    values += [] if last is None else list(zip(last.layers, last.values[:, -1].tolist(), strict=True))
    names = list(dict.fromkeys(name for name, value in values if isnan(value)))
    cause = "they do not vary, or the last comparison failed"
    return [f"nothing is known of {shortened(names)}, whose CKA is nan: {cause}"] if names else []


def _more_batches(
    found: Iterable[LayerConvergence], batches: Mapping[str, float | None], tolerance: float, level: float
) -> list[str]:
    """Return how many more probe batches it takes for layers that fail by their interval alone."""
    notes = [too_few_batches(batches.get(LAST_STATE))]
    needed = []
    for each in found:
        inside = each.value - (1 - tolerance) if each.compared_with == LAST_STATE else tolerance - abs(each.value)
        now = batches[each.compared_with]
        if each.converged is False and inside > 0 and now is not None:
            needed.append(batches_to_decide((each.high - each.low) / 2, now, inside, level))
    if needed:
        number = "far more" if None in needed else f"about {max(filter(None, needed))}"
        subject = "one interval is" if len(needed) == 1 else f"{len(needed)} intervals are"
        notes.append(
            f"{subject} too wide to tell, though the value itself is within the tolerance: {number} batches of the "
            "same size would do"
        )
    return [note for note in notes if note]
