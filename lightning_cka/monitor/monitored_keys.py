"""Before training, check that callbacks and schedulers find the CKA values that they monitor.

For example, ``EarlyStopping("cka/initial/mean")`` needs this value at each validation. If comparisons follow optimizer
steps, it sees the last value, and needs one by its first look.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from lightning.pytorch import Trainer

from lightning_cka.monitor.logged_diagnostics import diagnostic_keys
from lightning_cka.monitor.logged_ranks import rank_keys
from lightning_cka.monitor.logged_scalars import (
    BELOW_CEILING,
    BLOCKS,
    CONVERGED,
    band_names,
    change_names,
    scalar_names,
)
from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.trainer_state import validates_within_epochs
from lightning_cka.runtime.text import shortened


class Listener(NamedTuple):
    """A callback or a learning-rate scheduler that monitors a logged value."""

    name: str
    key: str
    every_n_epochs: int
    every_n_train_steps: int
    """0: it looks at validations or at the ends of epochs."""


def logged_keys(settings: Settings, references: Sequence[Reference], layers: Sequence[str]) -> set[str]:
    """Return the keys of all CKA scalars.

    Args:
        settings: The monitor's settings.
        references: The monitor's references; frozen ones have their banks.
        layers: Names of the live model's layers.
    """
    keys = rank_keys(settings, layers) if settings.log_ranks else set()
    for reference in references:
        own = () if reference.source == "self" else layers
        shared = own if reference.pairing is None else tuple(reference.pairing.layers)
        mean = "mean" if shared or reference.source == "self" else "mean_all_pairs"
        names = scalar_names(shared, mean) + _change_names(settings, shared)
        names += [BLOCKS] if reference.source == "self" else []
        if reference.is_fixed and shared:
            names += [CONVERGED] if settings.ceiling is None else [CONVERGED, BELOW_CEILING]
        if settings.log_intervals:
            names += [bound for _, *bounds in band_names(shared).values() for bound in bounds]
        for measure in settings.measures:
            keys |= {settings.logged(settings.key(reference.name, measure)) + name for name in names}
    return keys


def check_monitored_keys(
    trainer: Trainer, settings: Settings, references: Sequence[Reference], layers: Sequence[str]
) -> None:
    """Reject callbacks and schedulers that would not find their value.

    Args:
        trainer: The Trainer, with its callbacks and schedulers.
        settings: The monitor's settings.
        references: The monitor's references.
        layers: Names of the live model's layers.

    Raises:
        ValueError: The monitor does not log a monitored key, or not at each validation.
    """
    keys, diagnostics = logged_keys(settings, references, layers), diagnostic_keys(settings, layers)
    for listener in _listeners(trainer):
        if not listener.key.startswith((settings.log_key_prefix, settings.diagnostics_prefix, settings.ranks_prefix)):
            continue
        name = f"{listener.name} looks for {listener.key!r}"
        if problem := _problem_of_diagnostic(listener.key, settings, diagnostics, rank_keys(settings, layers)):
            raise ValueError(f"{name}, {problem}")
        if listener.key not in keys | diagnostics:
            if not settings.log_key_prefix:
                continue  # Without a prefix, others may log this key.
            close = get_close_matches(listener.key, keys, n=3) or sorted(keys)
            raise ValueError(f"{name}, which CKAMonitor does not log; it logs {shortened(close)}")
        if settings.schedule.by_steps:
            is_previous = any(listener.key.startswith(settings.logged(r.name)) for r in references if r.lag)
            _check_first_step(name, listener, settings, trainer, layers, is_previous=is_previous)
        elif problem := (
            _too_rare(listener, settings, trainer)
            or _too_late(listener, settings, references, trainer)
            or _needs_two_results(listener, settings, layers)
        ):
            raise ValueError(f"{name} at each validation, but CKAMonitor logs it {problem}")


def _change_names(settings: Settings, layers: Sequence[str]) -> list[str]:
    return list(change_names(layers).values()) if settings.log_changes else []


def _problem_of_diagnostic(key: str, settings: Settings, diagnostics: Collection[str], ranks: Collection[str]) -> str:
    """Return why the key of a diagnostic may have no value; empty if it has one, or is no such key."""
    if key in ranks and not settings.log_ranks:
        return "which CKAMonitor logs with log_ranks=True only"
    old = f"{settings.log_key_prefix}diagnostics/"
    new = settings.diagnostics_prefix + key.removeprefix(old) if key.startswith(old) else key
    if new not in diagnostics:
        return ""
    problems = [f"which is called {new!r} now"] if new != key else []
    if settings.log_diagnostics != "all":
        problems.append("which CKAMonitor logs only after the layer had a flag; log_diagnostics='all' logs it always")
    return ", ".join(problems)


def _needs_two_results(listener: Listener, settings: Settings, layers: Sequence[str]) -> str:
    if listener.key.rpartition("/")[2] not in _change_names(settings, layers):
        return ""
    return "from the second result on; a callback with strict=False waits for it"


def _listeners(trainer: Trainer) -> Iterator[Listener]:
    """Find callbacks and schedulers that need the value of a key; with ``strict=False`` they do not."""
    callbacks: Sequence[Any] = trainer.callbacks  # type: ignore[attr-defined]  # Set by a connector.
    schedulers = [config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
    for owner in (*callbacks, *schedulers):
        key = getattr(owner, "monitor", None)
        if isinstance(key, str) and getattr(owner, "strict", True):
            every = getattr(owner, "_every_n_epochs", getattr(owner, "frequency", 1)) or 1
            steps = getattr(owner, "_every_n_train_steps", every if getattr(owner, "interval", "") == "step" else 0)
            yield Listener(type(getattr(owner, "scheduler", owner)).__name__, key, every, steps)


def _check_first_step(
    name: str, listener: Listener, settings: Settings, trainer: Trainer, layers: Sequence[str], *, is_previous: bool
) -> None:
    """Reject a listener that looks for its value before the first comparison. Later it sees the last value.

    Raises:
        ValueError: There is no value by then.
    """
    schedule = settings.schedule
    looks_at = listener.every_n_train_steps or _first_step_of_validation(listener, trainer)
    first = 0 if schedule.at_start and not is_previous else schedule.first_step
    if problem := _needs_two_results(listener, settings, layers):
        raise ValueError(f"{name} from its first look on, but CKAMonitor logs it {problem}")
    if looks_at is not None and (first is None or first > looks_at):
        when = "at the start only" if first is None else f"from step {first} on"
        raise ValueError(
            f"{name} from step {looks_at} on, but CKAMonitor logs it {when} ({schedule}); compare earlier, or pass "
            "compare_at_start=True"
        )


def _first_step_of_validation(listener: Listener, trainer: Trainer) -> int | None:
    """Return the optimizer step at which a listener of validations first looks; None if it is not known."""
    batches: float = trainer.num_training_batches * max(listener.every_n_epochs, trainer.check_val_every_n_epoch or 1)
    if validates_within_epochs(trainer):
        batches = trainer.val_check_batch or math.inf
    if not math.isfinite(batches) or not trainer.lightning_module.automatic_optimization:
        return None
    return math.ceil(batches / trainer.accumulate_grad_batches)


def _too_rare(listener: Listener, settings: Settings, trainer: Trainer) -> str:
    every = settings.schedule.every_n_epochs or 1
    if listener.every_n_epochs % every == 0 or (trainer.check_val_every_n_epoch or 1) % every == 0:
        return ""
    return f"every {every} epochs; use every_n_epochs=1, or check_val_every_n_epoch={every} in the Trainer"


def _too_late(listener: Listener, settings: Settings, references: Sequence[Reference], trainer: Trainer) -> str:
    if listener.key.startswith(settings.ranks_prefix) and all(reference.epoch is not None for reference in references):
        # Results have the ranks, and there are none before the first reference.
        listener = listener._replace(key=settings.logged(references[0].name))
    for reference in references:
        if reference.epoch is None or not listener.key.startswith(settings.logged(reference.name)):
            continue
        if reference.epoch or validates_within_epochs(trainer):
            return f"from the end of epoch {reference.epoch} on"
    return ""
