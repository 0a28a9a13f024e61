"""`Session`: a monitor in one run of a Trainer, from the probe set to the last figure."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule, Trainer

from lightning_cka.compare.comparison import Comparison
from lightning_cka.compare.find_flags import variation_flags
from lightning_cka.compare.pair import Outcome
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import INITIAL, moment
from lightning_cka.compare.trajectory import trajectories
from lightning_cka.hsic.kernels import check_feature_kernel, kernel_name
from lightning_cka.monitor.live_probe import LiveProbe
from lightning_cka.monitor.memory import Kind, Memory
from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.report import Report
from lightning_cka.monitor.scalars import scalar_names
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.trainer_state import is_trial, validates
from lightning_cka.probe.bank import GramBank
from lightning_cka.runtime.devices import sums_device
from lightning_cka.runtime.text import describe_function


class Seen(NamedTuple):
    """What came of one pass of the live model."""

    outcomes: dict[tuple[str, str], Outcome]
    titles: dict[str, str]
    """Of the references, by name."""
    live: GramBank | None
    """The model's Gram matrices, if they will be asked for again."""


class Session:
    """Compares the live model with its references, tells what comes out, and keeps what will be asked for again.

    Making one chooses the probe set, finds the layers, and shows it to the frozen references. Every process must do
    all of this.

    Args:
        settings: the user's.
        references: whose banks are filled in.
        folder: of all files.
        trainer: of the run.
        module: the live model.
        memory: of an earlier session, whose checkpoint is still to be saved.

    Attributes:
        probe: shows the probe set.
        memory: what of the run outlives it; None outside training.
        results: as of `lightning_cka.CKAMonitor`.

    Raises:
        ValueError: something that cannot be compared.
    """

    def __init__(
        self,
        settings: Settings,
        references: list[Reference],
        folder: Path,
        results: dict[str, list[CKAResult]],
        trainer: Trainer,
        module: LightningModule,
        memory: Memory | None = None,
    ) -> None:
        self._settings = settings
        self._references = references
        self._folder = folder
        self._trainer = trainer
        self._module = module
        self.results = results
        self.memory = memory
        self._seen: Seen | None = None
        self.probe = LiveProbe(settings.probe, trainer, module)
        if len(self.probe.plan.names) == 1 and any(reference.source == "self" for reference in references):
            raise ValueError("reference 'self' compares a model's layers with each other, but only one is chosen")
        for kernel in settings.kernels.values():
            check_feature_kernel(kernel, self.probe.plan.num_samples)
        self._report = Report(trainer, settings.log_key_prefix, folder, list(settings.kernels))
        for reference in references:
            if reference.is_frozen:
                reference.bank = self.probe.frozen_bank(reference, trainer, module)

    def keys(self) -> set[str]:
        """What will be logged of each reference."""
        keys = set()
        for reference in self._references:
            own = () if reference.source == "self" else self.probe.plan.names
            other = reference.bank.layers if reference.is_frozen and reference.bank is not None else own
            for kernel in self._settings.kernels:
                prefix = f"{self._settings.log_key_prefix}{self._report.key(reference.name, kernel)}/"
                keys |= {prefix + name for name in scalar_names(name for name in own if name in other)}
        return keys

    def remember(self, state: dict[str, Any]) -> None:
        """Restore the run's history and the banks of earlier states, or begin them.

        Args:
            state: of the checkpoint that training goes on from; empty if there is none, or none in it.
        """
        trainer, report, settings = self._trainer, self._report, self._settings
        features = ", ".join(map(describe_function, (settings.probe.forward_fn, settings.probe.feature_fn)))
        if settings.probe.call != "first":
            features += f", call={settings.probe.call}"
        kinds = {
            report.key(reference.name, name): Kind(
                kernel_name(kernel),
                settings.unbiased,
                list(self.probe.plan.names),
                features,
                self.probe.probe.description,
                f"{reference.identity} {reference.bank.layers}" if reference.is_frozen and reference.bank else "",
            )
            for reference in self._references
            for name, kernel in settings.kernels.items()
        }
        memory = self.memory = Memory(
            self._folder,
            self._references,
            kinds,
            sums_device(self._module.device),
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            float16=settings.save_banks == "float16",
        )
        self.results = memory.results
        messages = memory.restore_results(state)
        skipped = self._skipped_epoch() if state else None
        needs = memory.earlier or settings.save_banks
        now = self.probe.bank(trainer, self._module, skipped, report.step) if needs else None
        goes_on = bool(state) or report.step > 0
        unsaved = ""
        if now is not None:
            if goes_on:
                messages += memory.restore_banks(state, now, trainer.current_epoch, trainer.global_step)
            else:
                memory.begin(now)
            unsaved = memory.unsaved(now) or (INITIAL if settings.save_banks and not goes_on else "")
        for message in messages:
            report.warn_once(message)
        if report.writes:
            report.outlet.attempt(lambda: memory.tidy(state, now), "what another run left could not be set aside")
        if now is not None and unsaved:
            self._keep(unsaved, now)

    def _skipped_epoch(self) -> int | None:
        """The epoch that ended with a checkpoint before its validation, which Lightning leaves out on resuming."""
        trainer = self._trainer
        epoch, progress = trainer.current_epoch - 1, trainer.fit_loop.epoch_loop.batch_progress
        often = math.lcm(self._settings.every_n_epochs, trainer.check_val_every_n_epoch or 1)
        # The last batch is completed once all callbacks have seen it; its validation comes thereafter.
        ended = progress.is_last_batch and progress.current.completed < progress.current.ready
        if not ended or epoch < 0 or (epoch + 1) % often:
            return None
        self._report.warn_once(
            f"epoch {epoch} has no CKA: its checkpoint was saved before its validation, which is left out on resuming"
        )
        return epoch

    def compare(self) -> None:
        """Show the live model the probe set, and compare what it gives with the references."""
        trainer, module, report = self._trainer, self._module, self._report
        epoch, is_training = trainer.current_epoch, trainer.state.fn != "validate"
        # Counted up already where a training epoch is at its end: Lightning's own scalars are one step before.
        step = report.step if trainer.validating else report.step - 1
        live = self.probe.empty_bank(module, epoch, step) if is_training and self._needs_bank(epoch) else None
        for reference in self._references:
            if live is not None and reference.epoch == epoch:
                reference.set_bank(live, moment(epoch, step))
            if not reference.is_ready and not is_training:
                report.warn_once(f"there is no '{reference.name}' to compare with: this model was not trained here")
        # Of several validations in an epoch, its reference is that of the last one.
        at_end = not validates(trainer) or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        ready = {
            reference.name: reference
            for reference in self._references
            if reference.is_ready and (at_end or not is_training or reference.epoch != epoch)
        }
        if not ready and live is None:
            return
        comparison = Comparison(
            self.probe.plan.names,
            {name: reference.bank for name, reference in ready.items()},
            self._settings.kernels,
            module.device,
            model_name=type(module).__name__,
            unbiased=self._settings.unbiased,
            thresholds=self._settings.thresholds,
            sample_kind=self.probe.probe.sample_kind,
            distributed=True,
            bank=live,
        )
        self.probe.show(trainer, module, comparison.add)
        outcomes = comparison.results(
            variation_flags(self.probe.variation),
            epoch=epoch if is_training else None,
            step=step if is_training else None,
        )
        self._seen = Seen(outcomes, {name: reference.title for name, reference in ready.items()}, live)

    def log(self) -> None:
        """Tell what came out, after comparing if that was not done, and keep what will be asked for again."""
        if self._seen is None:
            self.compare()
        seen, self._seen = self._seen, None
        if seen is None:
            return  # There is nothing to compare with yet.
        self.deliver(wait=True)  # Whatever is not drawn yet, or else ever more would wait.
        report, outcomes, live = self._report, seen.outcomes, seen.live
        told: dict[str, list[str]] = {}
        for (name, kernel), outcome in outcomes.items():
            result = replace(outcome.result, reference_name=seen.titles[name])
            key = report.key(name, kernel)
            self.results.setdefault(key, []).append(result)
            told[key] = report.warn_of(name, outcome, self.probe)
            report.log(self._module, key, result)
        report.log_diagnostics(self._module, outcomes)
        if live is not None:
            name = moment(live.epoch, live.step)
            for reference in self._references:
                if reference.source == "previous":
                    reference.set_bank(live, name)
            self._keep(name, live)
        if report.writes:  # Last, since a thread that draws takes turns with this one.
            for key, messages in told.items():
                report.write(key, self.results[key], messages)

    def deliver(self, *, wait: bool) -> None:
        """Log the figures that were drawn since the last comparison, if any; see `Outlet.deliver`."""
        self._report.outlet.deliver(wait=wait)

    def end(self) -> None:
        """Write tables and animations of the whole run, and log the trajectories."""
        for reference in self._references:
            if not reference.is_ready and not is_trial(self._trainer):
                self._report.warn_once(f"'{reference.name}' was not compared with: that epoch had no validation")
        if not self.results and all(reference.is_ready for reference in self._references):
            self._report.warn_once(
                f"CKAMonitor has no results: training ended before a validation in an epoch that was due "
                f"(every_n_epochs={self._settings.every_n_epochs}, "
                f"check_val_every_n_epoch={self._trainer.check_val_every_n_epoch})"
            )
        self.deliver(wait=True)
        if self._report.writes:
            self._report.outlet.attempt(self._summarize)
        self.deliver(wait=True)

    def _summarize(self) -> None:
        self._report.summarize(self.results)
        banks, step = self.memory.trajectory() if self._settings.trajectory and self.memory is not None else ([], 0)
        if len(banks) > 1:
            for name, kernel in self._settings.kernels.items():
                found = trajectories(
                    banks, kernel=kernel, unbiased=self._settings.unbiased, thresholds=self._settings.thresholds
                )
                self._report.take_trajectories(name, found, step)

    def _keep(self, name: str, bank: GramBank) -> None:
        """Write a bank to disk. Every process must call this."""
        if self.memory is not None and not is_trial(self._trainer):
            try:
                self.memory.keep(name, bank)
            except OSError as error:
                self._report.outlet.warn_of(error, "a bank could not be written, resuming will lack it")

    def _needs_bank(self, epoch: int) -> bool:
        """Whether the model's Gram matrices of this epoch will be asked for again."""
        return bool(self._settings.save_banks) or any(
            r.source == "previous" or r.epoch == epoch for r in self._references
        )
