"""`BankLimit`: delete old banks (``keep_banks=``), and say before training how much space banks will take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_cka.compare.run_files import INITIAL, moment_order, parse_moment
from lightning_cka.monitor.run_state import RunState
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.trainer_state import is_trial, last_train_step, validates
from lightning_cka.probe.bank import GramBank
from lightning_cka.runtime.collectives import all_reduce_sum
from lightning_cka.runtime.devices import sums_device


class BankLimit:
    """Keeps the banks of the last logged epochs, and those that references and checkpoints need.

    A checkpoint needs the banks of the references when it was saved. Checkpoints are found in the folders of the
    Trainer's `ModelCheckpoint` callbacks; of others, the last one counts. Only rank 0 uses it.

    Args:
        keep: Number of logged epochs, or by steps of comparisons, whose banks are kept.
        run: The run, with its restored banks.
        trainer: The Trainer.
    """

    def __init__(self, keep: int, run: RunState, trainer: Trainer) -> None:
        self._keep = keep
        self._run = run
        self._trainer = trainer
        # Checkpoints that already exist may need any restored bank, as "previous" at their time.
        has_previous = any(reference.lag for reference in run.references)
        restored = set(run.banks.records) if has_previous else set()
        self._checkpoints = dict.fromkeys(_checkpoint_files(trainer), restored)

    def apply(self) -> None:
        """Delete the banks that are not needed.

        Raises:
            OSError: A file cannot be deleted.
        """
        needed = self._run.moments | self._run.saved_moments
        # A checkpoint that is new since the last call has the references of that time.
        files = _checkpoint_files(self._trainer)
        self._checkpoints = {file: self._checkpoints.get(file, self._run.saved_moments) for file in files}
        needed.update(*self._checkpoints.values())
        moments = {name: moment for name in self._run.banks.records if (moment := parse_moment(name)) is not None}
        moments.pop(INITIAL, None)
        # All banks of an epoch count as one. By steps, each counts.
        groups = {name: (epoch, 0) if epoch >= 0 else (epoch, step) for name, (epoch, step) in moments.items()}
        in_order = sorted(moments, key=lambda name: moment_order(*moments[name]))
        recent = list(dict.fromkeys(groups[name] for name in reversed(in_order)))[: self._keep]
        for name in in_order:
            if groups[name] not in recent and name not in needed:
                self._run.banks.remove(name)


def announce_banks(live: GramBank, settings: Settings, run: RunState, trainer: Trainer, device: torch.device) -> None:
    """Log how much space the banks of a run will take. Every process must call this.

    Args:
        live: The live model's bank, as large as all later ones.
        settings: The monitor's settings.
        run: The run.
        trainer: The Trainer, before the first step.
        device: The live model's device.
    """
    has_previous = any(reference.lag for reference in run.references)
    if is_trial(trainer) or not (settings.needs_all_banks or has_previous):
        return
    entries = [part for batch in live for part in batch.grams]
    size = torch.tensor(sum(part.numel() * part.element_size() for part in entries), device=sums_device(device))
    mebibytes = int(all_reduce_sum(size, distributed=True)) / 2**20 / (2 if settings.save_banks == "float16" else 1)
    # A file stores each entry of the symmetric matrices once, as the bank in memory does.
    number = _number_of_banks(settings, trainer)
    total = "" if number is None else f", {number} x {mebibytes:.3g} = {number * mebibytes:.3g} MiB in all"
    rank_zero_info(f"CKA: a bank takes about {mebibytes:.3g} MiB on disk{total}; keep_banks= sets a limit")


def _number_of_banks(settings: Settings, trainer: Trainer) -> int | None:
    """Return the number of banks that training will leave on disk; None if it has no known end."""
    number = number_of_comparisons(settings, trainer, settings.keep_banks)
    return settings.keep_banks if number is None else number + 1  # With the initial one.


def number_of_comparisons(settings: Settings, trainer: Trainer, at_most: int | None = None) -> int | None:
    """Return how often training will compare from now on; None if it has no known end.

    Args:
        settings: The monitor's settings.
        trainer: The Trainer, before the first step.
        at_most: Number of epochs, or by steps of comparisons, to count at most; None: all.
    """
    schedule = settings.schedule
    if schedule.every_n_epochs is None:
        last = last_train_step(trainer)
        number = None if last is None else schedule.number_of_steps(trainer.global_step, last)
        return number if at_most is None or number is None else min(number, at_most)
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return None
    every = math.lcm(schedule.every_n_epochs, (trainer.check_val_every_n_epoch or 1) if validates(trainer) else 1)
    epochs = max(0, trainer.max_epochs // every - trainer.current_epoch // every)
    if at_most is not None:
        epochs = min(epochs, at_most)
    within = trainer.num_training_batches / (trainer.val_check_batch or math.inf) if validates(trainer) else 1
    return math.ceil(epochs * max(1, within if math.isfinite(within) else 1))


def _checkpoint_files(trainer: Trainer) -> set[tuple[Path, int]]:
    """Return path and time of each checkpoint in the folders of the Trainer's checkpoint callbacks."""
    return {(path, time) for callback in trainer.checkpoint_callbacks for path, time in _files_of(callback)}


def _files_of(callback: object) -> Iterator[tuple[Path, int]]:
    folder, suffix = getattr(callback, "dirpath", None), getattr(callback, "FILE_EXTENSION", ".ckpt")
    for path in Path(folder).glob(f"*{suffix}") if folder else ():
        yield path, path.stat().st_mtime_ns
