"""`ResultLogger`: log the results of a run to the Trainer's loggers, and write figures and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_cka.compare.pair import Outcome
from lightning_cka.compare.result import CKAResult
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.decisions.summary import RunSummary
from lightning_cka.monitor.figure_queue import FigureQueue
from lightning_cka.monitor.logged_diagnostics import FlaggedLayers, diagnostic_scalars
from lightning_cka.monitor.logged_figures import (
    drawn_before_kill,
    log_figures,
    measures_figure,
    trajectory_figures,
    write_summary,
)
from lightning_cka.monitor.logged_scalars import (
    ceiling_scalars,
    change_scalars,
    cka_scalars,
    converged_scalars,
    interval_scalars,
    logged_names,
    mean_band,
)
from lightning_cka.monitor.loggers import LoggerOutput
from lightning_cka.monitor.margin_charts import MarginCharts
from lightning_cka.monitor.output_errors import OutputErrors
from lightning_cka.monitor.report_file import ReportFile
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.step_log import ScalarLog
from lightning_cka.monitor.tensorboard_events import Comparisons
from lightning_cka.monitor.trainer_state import current_step, is_trial
from lightning_cka.monitor.warn_once import WarnOnce

if TYPE_CHECKING:
    from lightning_cka.monitor.figure_queue import Figures


class ResultLogger:
    """Logs the results of one run, and writes figures and tables of them.

    Args:
        trainer: The Trainer, whose loggers are used.
        settings: The monitor's settings.
        folder: The run's folder.

    Attributes:
        folder: The run's folder.
        warn: Issues warnings, each once.
        errors: Turns errors of files and loggers into warnings.
        figures: Draws figures in a thread.
        report: Writes the interactive view in the same thread.
        charts: Charts with confidence bands in TensorBoard.
        ceilings: Seed ceilings by measure, which drift maps show.
    """

    def __init__(self, trainer: Trainer, settings: Settings, folder: Path) -> None:
        self._trainer = trainer
        self._settings = settings
        self.folder = folder
        self.warn = WarnOnce()
        self.errors = OutputErrors(folder, self.warn)
        self.ceilings: dict[str, SeedCeiling] = {}
        self._loggers = LoggerOutput(trainer.loggers, self.errors)
        self.figures = FigureQueue(self._loggers)
        self.report = ReportFile(folder, f"{settings.log_key_prefix}report", self.figures, self._loggers)
        self.charts = MarginCharts(trainer.loggers, self.errors)
        self.report.ceilings = self.ceilings
        self._flagged = FlaggedLayers()

    @property
    def writes(self) -> bool:
        """Whether this process writes files and figures: rank 0 does, except in a ``fast_dev_run``."""
        return self._trainer.is_global_zero and not is_trial(self._trainer)

    def log(self, log: ScalarLog, key: str, history: Sequence[CKAResult], *, is_fixed: bool) -> None:
        """Log the scalars of the last result. Every process must call this.

        Args:
            log: It gets them.
            key: The key of `Settings.key`.
            history: Results with one reference, by one measure, in order; the last one is new.
            is_fixed: Whether the reference does not move; see `Reference.is_fixed`.
        """
        result = history[-1]
        prefix = self._settings.logged(key)
        names = {} if result.self_comparison else logged_names(result.same_named())
        for layer, name in names.items():
            if name != layer:
                self.warn(f"the CKA of layer '{layer}' is logged as '{prefix}{name}'")
        scalars = cka_scalars(result)
        if self._settings.log_intervals:
            scalars |= interval_scalars(result)
        if is_fixed:
            scalars |= converged_scalars(history, self._settings.tolerance, self._settings.patience)
            scalars |= ceiling_scalars(result, self.ceilings.values())
        log.add(prefix, scalars)
        if self.writes:
            self.charts.add_scalars(self._settings, key, scalars, mean_band(result.mean_name), names)
        if self._settings.log_changes:
            log.add(prefix, change_scalars(history))

    def log_diagnostics(
        self,
        log: ScalarLog,
        outcomes: Mapping[tuple[str, str], Outcome],
        results: Mapping[str, Sequence[CKAResult]],
    ) -> None:
        """Log the diagnostics of the model's layers: of those that have ever had a flag, or of all.

        Every process must call this.

        Args:
            log: It gets them.
            outcomes: New outcomes by names of reference and measure.
            results: All results in order, by the key of `Settings.key`; the last ones are new.
        """
        settings = self._settings
        flagged = self._flagged.update(results, settings) if settings.log_diagnostics == "flagged" else None
        for measure in settings.measures:
            scalars = diagnostic_scalars(outcome.result for (_, other), outcome in outcomes.items() if other == measure)
            chosen = [values for layer, values in scalars.items() if flagged is None or layer in flagged[measure]]
            together = {key: value for values in chosen for key, value in values.items()}
            log.add(settings.logged_diagnostics(measure), together)

    def write(self, key: str, history: Sequence[CKAResult], texts: Sequence[str], step: int | None = None) -> None:
        """Log the warnings about the last result as text, and the result itself, and start to draw its figures.

        Args:
            key: The key of `Settings.key`.
            history: All results of this key, in order.
            texts: Warnings about the last result.
            step: The step of the loggers. None: that of the result.
        """
        step = history[-1].step if step is None else step
        step = current_step(self._trainer) if step is None else step
        for text in texts:
            self._loggers.send("text", f"{self._settings.diagnostics_prefix}warnings", text, step)
        self._send_results(key, history[-1:], step)
        self._draw_figures(key, history, step)

    def _send_results(self, key: str, results: Sequence[CKAResult], step: int) -> None:
        comparisons = Comparisons(tuple(results), tuple(self.ceilings.values()))
        self._loggers.send("comparison", self._settings.logged(key), comparisons, step)

    def _draw_figures(self, key: str, history: Sequence[CKAResult], step: int) -> None:
        measures = list(self._settings.measures)
        ceiling = self.ceilings.get(measures[0] if len(measures) == 1 else key.rpartition("/")[2])
        log_figures(self.figures, self._settings.logged(key), self.folder / key, history, step, ceiling)

    def finish(self) -> None:
        """Write the last report, and wait until all figures are drawn and the loggers have all."""
        self.report.finish()
        self.figures.finish()

    def write_measures(self, name: str, results: Mapping[str, Sequence[CKAResult]], step: int | None = None) -> None:
        """Start to draw the figure of all measures of one reference, if there are several.

        Args:
            name: Name of the reference.
            results: All results in order, by the key of `Settings.key`.
            step: The step of the loggers. None: that of the last result.
        """
        by_measure = {measure: results[self._settings.key(name, measure)] for measure in self._settings.measures}
        last = next(iter(by_measure.values()))[-1]
        self.draw(name, measures_figure(self.folder / name, by_measure, self.ceilings), step or last.step or 0)

    def write_restored(self, results: Mapping[str, Sequence[CKAResult]]) -> None:
        """Log the results of an earlier part of the run, whose event files may be elsewhere or may lack some.

        Heatmaps that the run had not drawn when it was killed are drawn.

        Args:
            results: The restored results, by the key of `Settings.key`.
        """
        for key, history in results.items():
            self._send_results(key, history, history[-1].step or 0)
            for count in range(drawn_before_kill(self.folder / key, history), len(history)):
                self._draw_figures(key, history[: count + 1], history[count].step or 0)

    def write_summaries(self, results: Mapping[str, Sequence[CKAResult]]) -> None:
        """Write tables and animations of all results.

        Args:
            results: Results in order, by the key of `Settings.key`.
        """
        for key, history in results.items():
            write_summary(self._loggers, self._settings.logged(key), self.folder / key, history)

    def log_summary(self, found: RunSummary, step: int) -> None:
        """Print the summary of a run as Lightning prints its own, and log it as a Markdown text.

        Args:
            found: The summary.
            step: The step of the text.
        """
        rank_zero_info(f"\n{found.text(self.folder)}")
        self._loggers.send("text", f"{self._settings.log_key_prefix}summary", found.markdown(self.folder), step)

    def write_trajectories(self, measure: str, results: Mapping[str, CKAResult], step: int) -> None:
        """Start to draw the trajectories of layers.

        Args:
            measure: Name of the measure.
            results: Results by layer, from `lightning_cka.compare.trajectories`.
            step: The step of the images.
        """
        key = self._settings.key("trajectory", measure)
        self.draw(key, trajectory_figures(self.folder / key, results), step)

    def draw(self, key: str, figures: Figures, step: int) -> None:
        """Start to draw figures.

        Args:
            key: The key of `Settings.key` under which they are logged.
            figures: What to draw.
            step: The step of the images.
        """
        self.figures.submit(self._settings.logged(key), figures, step)

    def write_animation(self, key: str, write: Callable[[Path], None], step: int) -> None:
        """Write an animation and log it.

        Args:
            key: The key of `Settings.key`.
            write: Writes the animation to a path.
            step: The step of the video.
        """

        def write_and_send() -> None:
            path = self.folder / f"{key}-evolution.gif"
            write(path)
            self._loggers.send("video", f"{self._settings.logged(key)}evolution", path, step)

        self.errors.attempt(write_and_send)
