"""The end of training: warn about missing results, write tables and animations, and draw trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.pytorch import Trainer

from lightning_cka.compare.layer_ranks import last_ranks
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import is_of_training, last_moment
from lightning_cka.compare.trajectory import trajectories
from lightning_cka.decisions.summary import run_summary
from lightning_cka.monitor.bank_store import BankStore
from lightning_cka.monitor.logged_figures import rank_figure
from lightning_cka.monitor.reference import RANKS, Reference
from lightning_cka.monitor.run_output import ResultLogger
from lightning_cka.monitor.schedule import Schedule
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.trainer_state import is_trial
from lightning_cka.monitor.warn_once import WarnOnce

_MOST_BYTES = 2**28
"""Size of all banks up to which the summary reads them. The command ``convergence`` reads larger ones."""


def warn_about_missing(
    trainer: Trainer,
    references: Sequence[Reference],
    results: Mapping[str, Sequence[CKAResult]],
    schedule: Schedule,
    warn: WarnOnce,
) -> None:
    """Warn about references that were never compared with, or about a run without results."""
    missing = [reference for reference in references if not reference.is_ready]
    for reference in () if is_trial(trainer) else missing:
        warn(f"'{reference.name}' was not compared with: that epoch had no validation, or its comparison failed")
    if results or missing:
        return
    if schedule.by_steps:
        warn(
            f"CKAMonitor has no results: training ended at step {trainer.global_step}, before a step that was due "
            f"({schedule})"
        )
        return
    warn(
        f"CKAMonitor has no results: training ended before a validation in an epoch that was due "
        f"({schedule}, check_val_every_n_epoch={trainer.check_val_every_n_epoch})"
    )


def write_summary_of_run(
    results: Mapping[str, Sequence[CKAResult]],
    banks: BankStore | None,
    references: Sequence[Reference],
    settings: Settings,
    output: ResultLogger,
) -> None:
    """Write tables and animations of all results, and draw ranks and trajectories of layers if the user wants them."""
    output.write_summaries(results)
    _draw_ranks(results, settings, output)
    if settings.summary and any(is_of_training(result) for history in results.values() for result in history):
        output.errors.attempt(
            lambda: _write_table(results, banks, references, settings, output), "the summary could not be made"
        )
    if not settings.trajectory or banks is None:
        return
    files, step = banks.trajectory()
    if len(files) < 2:
        return
    for name, measure in settings.measures.items():
        found = trajectories(files, measures=measure, thresholds=settings.thresholds)
        output.write_trajectories(name, found, step)


def _draw_ranks(results: Mapping[str, Sequence[CKAResult]], settings: Settings, output: ResultLogger) -> None:
    """Start to draw the effective ranks of the longest history that has some."""
    known = [history for history in results.values() if last_ranks([history]) is not None]
    if settings.log_ranks and known:
        history = max(known, key=len)
        figure = rank_figure(output.folder / RANKS, history, settings.thresholds.rank_loss)
        output.figures.submit(settings.ranks_prefix, figure, history[-1].step or 0)


def _write_table(
    results: Mapping[str, Sequence[CKAResult]],
    banks: BankStore | None,
    references: Sequence[Reference],
    settings: Settings,
    output: ResultLogger,
) -> None:
    """Print the summary of the run, and log it as text."""
    files = [] if banks is None else [path for path in banks.trajectory()[0] if path.is_file()]
    if sum(path.stat().st_size for path in files) > _MOST_BYTES:
        files = []
    fixed = fixed_keys(results, references, settings)
    ceilings = output.ceilings.values()
    found = run_summary(results, files, fixed, tolerance=settings.tolerance, ceilings=ceilings)
    output.log_summary(found, last_moment(result for history in results.values() for result in history)[1])


def fixed_keys(
    results: Mapping[str, Sequence[CKAResult]], references: Sequence[Reference], settings: Settings
) -> list[str]:
    """Return the keys of the results with references that do not move."""
    names = [reference.name for reference in references if reference.is_fixed]
    keys = [settings.key(name, measure) for name in names for measure in settings.measures]
    return [key for key in keys if results.get(key)]
