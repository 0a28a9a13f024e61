"""At the start of training, give references that are earlier states of the model their Gram banks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_cka.compare.run_files import INITIAL, moment
from lightning_cka.monitor.bank_store import OTHER_FEATURES
from lightning_cka.monitor.reference import Reference, restarted_title
from lightning_cka.monitor.run_state import RunState
from lightning_cka.probe.bank import GramBank


def set_initial_banks(run: RunState, live: GramBank) -> None:
    """Give references their banks in a new run: "initial" and "previous" get the live model's, epochs get none.

    Args:
        run: The run.
        live: The bank of the model before its first step.
    """
    for reference in run.earlier_states:
        reference.clear_bank()
        if reference.epoch is None:
            reference.set_bank(live, INITIAL)


def restore_banks(run: RunState, saved: Mapping[str, Any], live: GramBank, epoch: int, step: int) -> list[str]:
    """Give references their banks after a restart. A lost bank is replaced by the live model's bank.

    Every process must call this.

    Args:
        run: The run, which has restored its results.
        saved: The value of `RunState.state_dict`; may be empty.
        live: The bank of the model as it is now. If it has an epoch, it is the bank of that epoch.
        epoch: The epoch with which training continues.
        step: The optimizer step with which training continues.

    Returns:
        Warnings about lost banks.
    """
    has_same_features = run.has_features_of(saved)
    run.banks.restore(saved.get("banks", {}) if has_same_features else {})
    messages = []
    loaded = {} if live.epoch is None else {moment(live.epoch, live.step): live}
    for reference in run.earlier_states:
        reference.clear_bank()
        now = moment(live.epoch, live.step) if _is_bank_of(reference, live) else ""
        before = _state_of(saved, reference)
        names = _moments_of(run, reference, before, now)
        if not names[0] and reference.epoch is not None and reference.epoch >= epoch:
            continue  # Training has yet to reach this epoch.
        is_usable = has_same_features or names == [now]
        if problem := _load(run, names, loaded, live) if is_usable else OTHER_FEATURES:
            messages.append(_restart(run, reference, live, step, problem))
            continue
        restarted = restarted_title(before) if names[0] == before.get("snapshot") else ""
        reference.set_bank(loaded[names[0]], names[0], restarted)
        reference.waiting = {name: loaded[name] for name in names[1:]}
    return messages


def _load(run: RunState, names: Sequence[str], loaded: dict[str, GramBank], live: GramBank) -> str:
    """Load the banks of some moments that are not loaded yet. Return why one cannot be used; empty if all can."""
    for name in names:
        if name not in loaded:
            bank, problem = run.banks.load(name, live)
            if bank is None:
                return problem
            loaded[name] = bank
    return ""


def _state_of(saved: Mapping[str, Any], reference: Reference) -> Mapping[str, Any]:
    """Return the saved state of a reference, also if it had no name of its own in the checkpoint."""
    states: Mapping[str, Any] = saved.get("references", {})
    return states.get(reference.name) or states.get(reference.usual_name) or {}


def _is_bank_of(reference: Reference, live: GramBank) -> bool:
    """Whether the live bank, if it is of an epoch, is this reference, or one of later comparisons."""
    return live.epoch is not None and (reference.lag > 0 or reference.epoch == live.epoch)


def _moments_of(run: RunState, reference: Reference, before: Mapping[str, Any], now: str) -> list[str]:
    """Return the moments of a reference's bank, and of those that wait for their turn; an empty one if unknown."""
    if now and not reference.lag:
        return [now]
    found = [before.get("snapshot") or _find_moment(run, reference), *before.get("waiting", ())]
    if now:
        found = [*filter(None, found), now]
    return found[-max(1, reference.lag) :]


def _find_moment(run: RunState, reference: Reference) -> str:
    """Return the moment of a reference that the checkpoint does not mention; empty if it has no bank."""
    if reference.source == "initial":
        return INITIAL
    return "" if reference.epoch is None else run.banks.name_of_epoch(reference.epoch)


def _restart(run: RunState, reference: Reference, live: GramBank, step: int, problem: str) -> str:
    """Replace the lost bank of a reference by the live model's, and return a warning."""
    # The prefix keeps this bank out of the trajectory.
    reference.set_bank(live, f"restarted-step={step:06d}", f"restarted at step {step}")
    run.drop_results(reference)  # They were comparisons with the lost bank.
    return (
        f"training goes on from step {step}, but the bank of reference '{reference.name}' {problem}: the model is "
        f"compared with its current weights instead, as '{reference.title}', in a new history"
    )
