"""`Report`: what a monitor tells, on the console, to the loggers and in files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cka.compare.pair import Outcome
from lightning_cka.compare.result import CKAResult
from lightning_cka.monitor.live_probe import LiveProbe
from lightning_cka.monitor.notices import Notices
from lightning_cka.monitor.outlet import Outlet
from lightning_cka.monitor.run_folder import result_path
from lightning_cka.monitor.scalars import cka_scalars, diagnostic_scalars, logged_name
from lightning_cka.monitor.summary import log_figures, trajectory_figures, write_summary
from lightning_cka.monitor.trainer_state import is_trial
from lightning_cka.probe.exchangeability import variation_message


class Report:
    """Tells what comes out of one run, each warning once.

    Args:
        trainer: of the run.
        key_prefix: of all logged keys.
        folder: of the files.
        kernels: their names.

    Attributes:
        outlet: where figures, animations and texts go.
    """

    def __init__(self, trainer: Trainer, key_prefix: str, folder: Path, kernels: Sequence[str]) -> None:
        self._trainer = trainer
        self._prefix = key_prefix
        self._folder = folder
        self._kernels = kernels
        self._notices = Notices()
        self.outlet = Outlet(trainer.loggers, folder, self.warn_once)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files and figures; none does in a fast_dev_run."""
        return self._trainer.is_global_zero and not is_trial(self._trainer)

    @property
    def step(self) -> int:
        """The step that Lightning's own scalars are at."""
        return self._trainer.fit_loop.epoch_loop._batches_that_stepped

    def key(self, name: str, kernel: str) -> str:
        """Of results, files and logged values: with several kernels, each has its own."""
        return f"{name}/{kernel}" if len(self._kernels) > 1 else name

    def warn_once(self, message: str) -> None:
        """Warn, on the first process, unless that was said before."""
        if self._notices.is_new(message):
            rank_zero_warn(message)

    def log(self, module: LightningModule, key: str, result: CKAResult) -> None:
        """Log the scalars of a result; every process must.

        Args:
            module: logs them.
            key: of the result's history.
            result: of one reference through one kernel.
        """
        prefix = f"{self._prefix}{key}/"
        for name in () if result.self_comparison else result.same_named():
            if logged_name(name) != name:
                self.warn_once(f"the CKA of layer '{name}' is logged as '{prefix}{logged_name(name)}'")
        self._log(module, prefix, cka_scalars(result))

    def write(self, key: str, history: Sequence[CKAResult], told: Sequence[str]) -> None:
        """Write the last result of a history to its file, have it drawn, and log the warnings about it as text."""
        outlet, result = self.outlet, history[-1]
        step = self.step if result.step is None else result.step
        outlet.attempt(lambda: result.save(result_path(self._folder, key, result)))
        for message in told:
            outlet.log("text", f"{self._prefix}diagnostics", message, step)
        log_figures(outlet, f"{self._prefix}{key}/", self._folder / key, history, step)

    def log_diagnostics(self, module: LightningModule, outcomes: Mapping[tuple[str, str], Outcome]) -> None:
        """Log the diagnostics of the model's layers, by names of reference and kernel."""
        for kernel in self._kernels:
            results = [outcome.result for (_, other), outcome in outcomes.items() if other == kernel]
            self._log(module, f"{self._prefix}{self.key('diagnostics', kernel)}/", diagnostic_scalars(results))

    def _log(self, module: LightningModule, prefix: str, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            module.log(prefix + key, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)

    def summarize(self, results: Mapping[str, Sequence[CKAResult]]) -> None:
        """Write tables and animations of whole histories, by their keys."""
        for key, history in results.items():
            write_summary(self.outlet, f"{self._prefix}{key}/", self._folder / key, history)

    def take_trajectories(self, kernel: str, results: Mapping[str, CKAResult], step: int) -> None:
        """Draw and log how each layer moved, up to a step."""
        name = self.key("trajectory", kernel)
        self.outlet.figures(f"{self._prefix}{name}/", trajectory_figures(self._folder / name, results), step)

    def warn_of(self, name: str, outcome: Outcome, probe: LiveProbe) -> list[str]:
        """Warn of what is new about a comparison with a reference, and give what is to be logged of it."""
        for message in self._notices.undefined(outcome, {layer for layer, _ in probe.plan.warned}):
            rank_zero_warn(message)
        told: list[str] = []
        if not is_trial(self._trainer):  # Its few samples prove nothing.
            told = self._notices.flagged(outcome, probe.probe.sample_kind, earlier_states=["previous"])
        for message in told:
            rank_zero_warn(message)
        if probe.variation and self._notices.is_new("variation"):  # Which was warned of when it was found.
            told.append(variation_message(probe.variation, "dataloader="))
        if outcome.result.num_batches == 1 and not is_trial(self._trainer):
            self.warn_once("one probe batch gives no standard errors: use smaller batches (batch_size=)")
        if outcome.num_mismatched:
            # Not for rank 0 alone: each process sees batches of its own.
            warnings.warn(
                f"{outcome.num_mismatched} probe batches were left out of the comparison with '{name}', "
                "since their inputs are not those that it was shown: the dataset or dataloader= does not give the same "
                "samples each time",
                stacklevel=2,
            )
        return told
