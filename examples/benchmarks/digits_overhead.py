"""How much longer a training epoch of the digits example takes with the monitor."""

from __future__ import annotations

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


class EpochTimes(L.Callback):
    """Measure the seconds from the start of each epoch to the start of the next."""

    def __init__(self):
        self.starts = []

    def on_train_epoch_start(self, trainer, module):
        self.starts.append(time.perf_counter())

    def on_train_end(self, trainer, module):
        self.starts.append(time.perf_counter())

    def epochs(self):
        """Return the times of all epochs but the first, which warms up, and the last, which includes tear-down."""
        times = [end - start for start, end in zip(self.starts, self.starts[1:], strict=False)]
        return times[1:-1]


def train(references, epochs, folder):
    """Train once, and return the seconds of each epoch."""
    L.seed_everything(0, workers=True, verbose=False)
    training, validation = digits()
    times = EpochTimes()
    monitors = [CKAMonitor(references, LAYERS, dirpath=folder / "cka")] if references else []
    L.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[*monitors, times],
        logger=TensorBoardLogger(folder, name="tensorboard"), log_every_n_steps=5,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(
        DigitsCNN(), DataLoader(training, batch_size=64, shuffle=True), DataLoader(validation, batch_size=64)
    )  # fmt: skip
    return times.epochs()


def measure(repeats, epochs, folder):
    """Return the median seconds of an epoch, one for each run, by references."""
    runs = {name: [] for name in RUNS}
    for repeat in range(repeats):
        for number, (name, (references, change)) in enumerate(RUNS.items()):
            with change:
                times = train(references, epochs, folder / f"{repeat}-{number}")
            runs[name].append(statistics.median(times))
    return runs


def table_rows(runs):
    """Return the rows of the table."""
    rows = []
    for name, times in runs.items():
        percent = [100 * (1 - bare / watched) for bare, watched in zip(runs[WITHOUT], times, strict=True)]
        cell = "–" if name == WITHOUT else with_range(percent, "{:.1f}")
        rows.append({"references": name, "epoch": seconds(times), "time of the monitor, % of the epoch": cell})
    return rows
