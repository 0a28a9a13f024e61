"""The start of training: begin a new run, or continue the run of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_cka.compare.run_files import INITIAL
from lightning_cka.monitor.announced_cost import announce_cost
from lightning_cka.monitor.bank_limit import announce_banks
from lightning_cka.monitor.live_probe import LiveProbe
from lightning_cka.monitor.restore_references import restore_banks, set_initial_banks
from lightning_cka.monitor.run_ceilings import run_ceilings
from lightning_cka.monitor.run_output import ResultLogger
from lightning_cka.monitor.run_state import RunState
from lightning_cka.monitor.saved_history import complete_state, renamed_messages
from lightning_cka.monitor.schedule import Schedule
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.tidy_folder import tidy_folder
from lightning_cka.monitor.trainer_state import START, Moment, current_step, moment_of_step, validates_after_batch
from lightning_cka.monitor.warn_once import WarnOnce
from lightning_cka.probe.bank import GramBank
from lightning_cka.runtime.devices import sums_device


def start_run(
    run: RunState,
    saved: Mapping[str, Any],
    probe: LiveProbe,
    trainer: Trainer,
    module: LightningModule,
    settings: Settings,
    output: ResultLogger,
) -> None:
    """Restore results and banks, tidy the run's folder, and save the bank of the model as it is now.

    Every process must call this.

    Args:
        run: The run, without results and banks.
        saved: The value of `RunState.state_dict` from the checkpoint, or of `RunState.full_state` from an earlier
            ``fit()``; empty for a new run.
        probe: The probe set.
        trainer: The Trainer, before the first step.
        module: The live model.
        settings: The monitor's settings.
        output: Issues warnings.
    """
    announce_cost(probe, settings, run, trainer, module.device)
    saved, messages = complete_state(saved, run.folder, run.keys, trainer)
    messages += [*renamed_messages(saved, run.keys), *run.restore_results(saved)]
    run.store.hold(run.results)
    every = settings.schedule.every_n_epochs
    epoch = _epoch_without_validation(trainer, every, output.warn) if saved and every is not None else None
    # A second fit() of one Trainer with another model continues at a later step, without a state.
    continues = bool(saved) or current_step(trainer) > 0
    live = None
    if run.earlier_states or settings.needs_all_banks:
        live = probe.bank(trainer, module, epoch, current_step(trainer))
        announce_banks(live, settings, run, trainer, module.device)
        if continues:
            messages += restore_banks(run, saved, live, trainer.current_epoch, trainer.global_step)
        else:
            set_initial_banks(run, live)
    probed = [live, *(reference.bank for reference in run.references)]
    bank = next((each for each in probed if each is not None), None)
    output.ceilings.update(run_ceilings(settings, bank, probe.plan.names, sums_device(module.device)))
    for message in messages:
        output.warn(message)
    if output.writes:
        output.errors.attempt(lambda: tidy_folder(run, saved, live), "files of an earlier run could not be moved aside")
        output.write_restored(run.results)
    if live is not None and (
        name := _name_to_save(run, live, is_new=not continues, saves_all=settings.needs_all_banks)
    ):
        run.banks.save(name, live)


def _name_to_save(run: RunState, live: GramBank, *, is_new: bool, saves_all: bool) -> str:
    """Return the moment under which to save the live model's bank; empty if it is not needed."""
    kept = (each for reference in run.earlier_states for each in reference.kept.items())
    of_reference = next((name for name, bank in kept if bank is live), "")
    return of_reference or (INITIAL if saves_all and is_new else "")


def _epoch_without_validation(trainer: Trainer, every_n_epochs: int, warn: WarnOnce) -> int | None:
    """Return the epoch whose checkpoint was saved before its last validation; None if there is no such epoch.

    When Lightning resumes from a checkpoint that was saved at the end of a batch, it does not repeat the validation
    that follows. Warn about it, also in the middle of an epoch.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    # Lightning counts a batch as completed after its callbacks, and validates after that.
    if progress.current.completed >= progress.current.ready:
        return None
    epoch = trainer.current_epoch - progress.is_last_batch
    every = math.lcm(every_n_epochs, trainer.check_val_every_n_epoch or 1)
    if epoch < 0 or (epoch + 1) % every:
        return None
    if progress.is_last_batch:
        warn(f"epoch {epoch} has no CKA: its checkpoint was saved before its validation, which is skipped on resuming")
        return epoch
    if validates_after_batch(trainer):
        warn(
            f"epoch {epoch} lacks the CKA after batch {progress.current.ready}: its checkpoint was saved before that "
            "validation, which is skipped on resuming"
        )
    return None


def moment_before_training(
    trainer: Trainer, module: LightningModule, schedule: Schedule, saved: Mapping[str, Any]
) -> Moment | None:
    """Return the moment of a comparison that is due before the next training step; None if none is.

    It is due at the start of a new run if the user wants it. It is due after a restart from a checkpoint that was saved
    at a step that was due, but before its comparison.

    Args:
        trainer: The Trainer, before the first step.
        module: The live model.
        schedule: The monitor's schedule.
        saved: As in `start_run`.
    """
    step = trainer.global_step
    if step == 0:
        return START if schedule.at_start and not saved else None
    _, compared = saved.get("last", (-1, -1))
    earliest = step - max(1, len(trainer.optimizers))  # All optimizers may have stepped in the last batch.
    return moment_of_step(trainer, module) if schedule.is_due(max(earliest, compared), step) else None
