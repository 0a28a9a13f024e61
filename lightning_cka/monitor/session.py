"""`Session`: a monitor during one run of a Trainer, from the probe set to the last figure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_cka.compare.layer_ranks import last_ranks
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import is_of_training, moment
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.hsic.check_measures import check_sizes
from lightning_cka.monitor.announced_files import announce_files
from lightning_cka.monitor.bank_limit import BankLimit
from lightning_cka.monitor.epoch_comparison import EpochComparison, compare_epoch
from lightning_cka.monitor.failed_comparison import compare_or_warn
from lightning_cka.monitor.folder_owner import FolderOwner
from lightning_cka.monitor.live_probe import LiveProbe
from lightning_cka.monitor.logged_ranks import log_ranks
from lightning_cka.monitor.logged_warnings import warn_about
from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.run_end import warn_about_missing, write_summary_of_run
from lightning_cka.monitor.run_folder import monitor_folder, result_path
from lightning_cka.monitor.run_output import ResultLogger
from lightning_cka.monitor.run_state import RunState, history_settings, new_run
from lightning_cka.monitor.sample_pictures import SamplePictures
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.start_or_resume import moment_before_training, start_run
from lightning_cka.monitor.step_log import EpochLog, ScalarLog, StepLog
from lightning_cka.monitor.trainer_state import Moment, is_trial, is_validate
from lightning_cka.probe.bank import GramBank


class Session:
    """Compares the live model with its references, logs the results, and saves what later epochs need.

    The constructor chooses the probe set, finds the layers, and shows the probe set to the frozen references. Every
    process must call all methods.

    Args:
        settings: The monitor's settings.
        references: The monitor's references, which get their banks.
        results: Results of an earlier run; ``trainer.validate()`` appends to them.
        trainer: The Trainer.
        module: The live model.
        run: State of an earlier run, which is saved in checkpoints until `start`.
        known: See `LiveProbe`.

    Attributes:
        probe: The probe set and the live model's layers.
        run: What a checkpoint keeps of the run; None before training.
        results: See `lightning_cka.CKAMonitor`.

    Raises:
        ValueError: The models cannot be compared on the probe set.
    """

    def __init__(
        self,
        settings: Settings,
        references: list[Reference],
        results: dict[str, list[CKAResult]],
        trainer: Trainer,
        module: LightningModule,
        run: RunState | None = None,
        known: Collection[str] = (),
    ) -> None:
        self._settings = settings
        self._references = references
        self._folder = monitor_folder(trainer, settings)
        self._trainer = trainer
        self._module = module
        self.results = results
        self.run = run
        self._compared: EpochComparison | None = None
        self._bank_limit: BankLimit | None = None
        is_shown_at_start = settings.needs_all_banks or any(reference.is_earlier_state for reference in references)
        self.probe = LiveProbe(settings.probe, trainer, module, known, is_shown_later=not is_shown_at_start)
        if len(self.probe.plan.names) == 1 and any(reference.source == "self" for reference in references):
            raise ValueError("reference 'self' compares a model's layers with each other, but only one is chosen")
        check_sizes(settings.measures, [self.probe.plan.num_samples])
        if self.probe.sample_numbers is not None:  # Otherwise the first comparison checks them.
            settings.selection.of_kind(self.probe.probe.sample_kind).check(self.probe.sample_numbers)
        self._pictures: SamplePictures | None = None
        if settings.plot_samples and not is_validate(trainer):
            self._pictures = SamplePictures(settings, self.probe, trainer, module)
        self._owner = FolderOwner()
        self._output = ResultLogger(trainer, settings, self._folder)
        for reference in references:
            if reference.is_frozen:
                reference.bank = self.probe.frozen_bank(reference, trainer, module)
        self.probe.probe.release_first_batch()

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Let copies and pickles of the monitor have no session: it belongs to a running Trainer."""
        return type(None), ()

    def start(self, saved: Mapping[str, Any], earlier: RunState | None = None) -> None:
        """Begin a run, or continue that of a checkpoint or of an earlier ``fit()``. Compare if that is due by now.

        Args:
            saved: The value of `RunState.state_dict` from the checkpoint; empty if there is none.
            earlier: The run of the earlier ``fit()``; None if there is none.
        """
        trainer, settings = self._trainer, self._settings
        folder = self._owner.acquire(self._folder, trainer)
        if folder != self._folder:
            self._folder, self._output = folder, ResultLogger(trainer, settings, folder)
        histories = history_settings(self._references, settings, self.probe)
        self.run = new_run(
            self._folder, self._references, histories, settings, trainer, self._module, self._output.errors
        )
        if not saved and earlier is not None and earlier.is_continued_by(trainer, self._module, self._output.warn):
            saved = earlier.full_state()
            self.run.banks.use_memory(earlier.banks_in_memory)
        self.results = self.run.results
        start_run(self.run, saved, self.probe, trainer, self._module, settings, self._output)
        self.run.banks.use_memory({})
        announce_files(trainer, self._folder, self.run.keys)
        if self._pictures is not None:
            self._pictures.write_labels(self._output)
        if settings.keep_banks is not None and self._output.writes:
            self._bank_limit = BankLimit(settings.keep_banks, self.run, trainer)
        if when := moment_before_training(trainer, self._module, settings.schedule, saved):
            self.log(when)

    @property
    def ceilings(self) -> dict[str, SeedCeiling]:
        """Return the seed ceilings by measure, after `start`."""
        return self._output.ceilings

    def compare(self, when: Moment) -> None:
        """Show the live model the probe set, and compare it with the references."""
        made = (self._trainer, self._module, self.probe, self._references, self._settings, self._output.warn, when)
        arguments = (*made, last_ranks(self.results.values()) if self._settings.log_ranks else None)
        is_tolerant = self._settings.on_error == "warn" and not is_validate(self._trainer)
        self._compared = compare_or_warn(*arguments) if is_tolerant else compare_epoch(*arguments)

    def log(self, when: Moment) -> None:
        """Log and write the results of `compare`, which is called first if it was not, and save the model's bank."""
        if self._compared is None:
            self.compare(when)
        compared, self._compared = self._compared, None
        if compared is None:
            return  # There is nothing to compare with yet.
        self.deliver(wait=False)
        scalars: ScalarLog = EpochLog(self._module)
        if when.logged_step is not None:
            scalars = StepLog(self._trainer, self._module, when.logged_step)
        texts = self._log_results(compared, scalars)
        scalars.send()
        if compared.bank is not None:
            self._keep_bank(compared.bank)
        if self._pictures is not None and compared.drawn is not None:
            self._pictures.draw_flagged(compared.drawn, [self.results[key][-1] for key in texts], self._output)
        if self._output.writes:  # Last, because the drawing thread slows this one down.
            self._write(compared, texts)

    def _write(self, compared: EpochComparison, texts: Mapping[str, Sequence[str]]) -> None:
        """Save the results, and start to draw their figures and to write the report.

        Args:
            compared: The comparison.
            texts: Warnings to log as text, by the results' key.
        """
        when = compared.when
        self._output.charts.write()
        for key, messages in texts.items():
            self._save(key, self.results[key][-1])
            self._output.write(key, self.results[key], messages, when.logged_step)
        for name in compared.titles:
            self._output.write_measures(name, self.results, when.logged_step)
        if when.step is not None:
            self._output.report.update(self.results, when.step if when.logged_step is None else when.logged_step)

    def _log_results(self, compared: EpochComparison, scalars: ScalarLog) -> dict[str, list[str]]:
        """Append the results to their histories, and log their scalars and warnings.

        Args:
            compared: The comparison.
            scalars: It gets the scalars.

        Returns:
            Warnings to log as text, by the results' key.
        """
        texts = {}
        explained = {layer for layer, _ in self.probe.plan.warned}
        fixed = {reference.name for reference in self._references if reference.is_fixed}
        for (name, measure), outcome in compared.outcomes.items():
            key = self._settings.key(name, measure)
            result = replace(outcome.result, reference_name=compared.titles[name])
            self.results.setdefault(key, []).append(result)
            texts[key] = warn_about(
                self._output.warn, name, outcome, self.probe.variation, explained, is_trial=is_trial(self._trainer)
            )
            self._output.log(scalars, key, self.results[key], is_fixed=name in fixed)
        self._output.log_diagnostics(scalars, compared.outcomes, self.results)
        log_ranks(scalars, self._settings, compared.outcomes.values())
        return texts

    def _save(self, key: str, result: CKAResult) -> None:
        """Write a result to its file. Results of ``trainer.validate()`` are not listed in the journal."""
        if self.run is not None and is_of_training(result):
            self.run.store.save(key, result)
        else:
            self._output.errors.attempt(lambda: result.save(result_path(self._folder, key, result)))

    def _keep_bank(self, bank: GramBank) -> None:
        """Let the live model's bank be a "previous" of later comparisons, and save it."""
        name = moment(bank.epoch, bank.step)
        for reference in self._references:
            if reference.lag:
                reference.follow(bank, name)
        if self.run is not None:
            self.run.banks.save(name, bank)
        if self._bank_limit is not None:
            self._output.errors.attempt(self._bank_limit.apply, "an old bank could not be deleted")

    def deliver(self, *, wait: bool) -> None:
        """Log the figures that are drawn, and write the report if it is due; see `FigureQueue.deliver`."""
        self._owner.beat()
        self._output.figures.deliver(wait=wait)
        self._output.report.poll()

    def finish(self) -> None:
        """Wait until the loggers have all figures, and leave the folder to other runs."""
        try:
            self._output.finish()
        finally:
            self._owner.release()

    def end(self) -> None:
        """Warn about missing results, write tables and animations, and log the trajectories."""
        settings, output = self._settings, self._output
        warn_about_missing(self._trainer, self._references, self.results, settings.schedule, output.warn)
        self.deliver(wait=True)
        if self._pictures is not None:
            files = self.run.banks.trajectory()[0] if self.run is not None and settings.needs_all_banks else []
            self._pictures.draw_end(self.results, files, output)
        if output.writes:
            banks = None if self.run is None else self.run.banks
            output.errors.attempt(lambda: write_summary_of_run(self.results, banks, self._references, settings, output))
        self.finish()
