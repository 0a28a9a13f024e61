"""How much longer a training epoch of the digits example takes with the monitor, in wall time and in CPU time."""

from __future__ import annotations

import itertools
import statistics
import time
from contextlib import nullcontext
from unittest.mock import patch

import lightning as L
from digits import LAYERS, DigitsCNN, digits
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_cka import CKAMonitor
from lightning_cka.monitor import report_file
from torch.utils.data import DataLoader

from benchmarks.markdown import seconds, with_range

WITHOUT = "without the monitor"
ALL = ["initial", "previous", "self"]
RUNS = {
    WITHOUT: (None, nullcontext()),
    "initial": (["initial"], nullcontext()),
    "initial, previous, self": (ALL, nullcontext()),
    "the same without report.html": (ALL, patch.object(report_file.ReportFile, "update")),
    "the same with report.html after each epoch": (ALL, patch.object(report_file, "SECONDS", 0.0)),
}
"""By name: the references, and what changes meanwhile when ``report.html`` is written."""


CLOCKS = {"wall": time.perf_counter, "CPU": time.process_time}
"""By name: a clock in seconds. CPU time is that of all threads."""


class EpochTimes(L.Callback):
    """Measure the seconds from the start of each epoch to the start of the next."""

    def __init__(self):
        self.starts = []

    def on_train_epoch_start(self, trainer, module):
        self.starts.append({name: clock() for name, clock in CLOCKS.items()})

    def on_train_end(self, trainer, module):
        self.on_train_epoch_start(trainer, module)

    def epoch(self, clock):
        """Return the median of all epochs but the first, which warms up, and the last, which includes tear-down."""
        times = [end[clock] - start[clock] for start, end in itertools.pairwise(self.starts)]
        return statistics.median(times[1:-1])


def train(references, epochs, folder):
    """Train once, and return the seconds of an epoch and of all of training by each clock."""
    L.seed_everything(0, workers=True, verbose=False)
    training, validation = digits()
    times = EpochTimes()
    monitors = [CKAMonitor(references, LAYERS, dirpath=folder / "cka")] if references else []
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[*monitors, times],
        logger=TensorBoardLogger(folder, name="tensorboard"), log_every_n_steps=5,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    before = {name: clock() for name, clock in CLOCKS.items()}
    trainer.fit(DigitsCNN(), DataLoader(training, batch_size=64, shuffle=True), DataLoader(validation, batch_size=64))
    return {name: {"epoch": times.epoch(name), "run": clock() - before[name]} for name, clock in CLOCKS.items()}


def measure(repeats, epochs, folder):
    """Return the seconds of an epoch and of all of training, one for each run, by references."""
    runs = {name: [] for name in RUNS}
    for repeat in range(repeats):
        for number, (name, (references, change)) in enumerate(RUNS.items()):
            with change:
                runs[name].append(train(references, epochs, folder / f"{repeat}-{number}"))
    return runs


def table_rows(runs):
    """Return the rows of the table: seconds of an epoch, and the part that the monitor takes of it and of the run."""
    rows = []
    for name, times in runs.items():
        row = {"references": name}
        for clock in CLOCKS:
            row[f"epoch, {clock}"] = seconds([each[clock]["epoch"] for each in times])
            for part, title in (("epoch", f"monitor, % of the epoch, {clock}"), ("run", f"% of the run, {clock}")):
                pairs = zip(runs[WITHOUT], times, strict=True)
                percent = [100 * (1 - bare[clock][part] / watched[clock][part]) for bare, watched in pairs]
                row[title] = "–" if name == WITHOUT else with_range(percent, "{:.1f}")
        rows.append(row)
    return rows
