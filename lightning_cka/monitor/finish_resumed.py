"""Finish the run of a checkpoint that has nothing left to train: restore its results, and write what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_cka.compare.run_files import last_moment
from lightning_cka.monitor.folder_owner import FolderOwner
from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.run_ceilings import read_ceilings
from lightning_cka.monitor.run_end import write_summary_of_run
from lightning_cka.monitor.run_folder import monitor_folder
from lightning_cka.monitor.run_output import ResultLogger
from lightning_cka.monitor.run_state import HistorySettings, RunState, new_run
from lightning_cka.monitor.sample_pictures import draw_end_of_run, read_labels_file
from lightning_cka.monitor.saved_history import complete_state
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.tidy_folder import tidy_folder


def finish_run(
    saved: Mapping[str, Any],
    references: Sequence[Reference],
    settings: Settings,
    trainer: Trainer,
    module: LightningModule,
) -> RunState:
    """Restore the results of a run, and write its tables, animations, trajectories and last figures.

    The model is not shown the probe set, because nothing is compared. Every process must call this.

    Args:
        saved: The value of `RunState.state_dict` from the checkpoint.
        references: The monitor's references.
        settings: The monitor's settings.
        trainer: The Trainer, whose training has already ended in the checkpoint.
        module: The model.

    Returns:
        The run, with its results.
    """
    owner = FolderOwner()
    folder = owner.acquire(monitor_folder(trainer, settings), trainer)
    try:
        return _finish(folder, saved, references, settings, trainer, module)
    finally:
        owner.release()


def _finish(
    folder: Path,
    saved: Mapping[str, Any],
    references: Sequence[Reference],
    settings: Settings,
    trainer: Trainer,
    module: LightningModule,
) -> RunState:
    output = ResultLogger(trainer, settings, folder)
    keys = [settings.key(reference.name, measure) for reference in references for measure in settings.measures]
    kinds = {key: HistorySettings(*kind) for key, kind in saved.get("kinds", {}).items() if key in keys}
    run = new_run(folder, references, kinds, settings, trainer, module, output.errors)
    saved, messages = complete_state(saved, folder, run.keys, trainer)
    messages += run.restore_results(saved)
    run.restore_moments(saved)
    run.store.hold(run.results)
    run.banks.restore(saved.get("banks", {}))
    for message in messages:
        output.warn(message)
    if output.writes:
        layers = [layer for kind in kinds.values() for layer in kind.layers]
        output.errors.attempt(lambda: output.ceilings.update(read_ceilings(settings, layers)))
        output.errors.attempt(lambda: tidy_folder(run, saved, None), "files of an earlier run could not be moved aside")
        output.write_restored(run.results)
        output.figures.deliver(wait=True)
        output.errors.attempt(lambda: write_summary_of_run(run.results, run.banks, references, settings, output))
        if settings.plot_samples and settings.needs_all_banks:
            files, labels = run.banks.trajectory()[0], read_labels_file(folder)
            output.errors.attempt(lambda: draw_end_of_run(run.results, files, None, labels, settings, output))
        _, step = last_moment(result for history in run.results.values() for result in history)
        output.report.update(run.results, step)
        output.finish()
    return run
