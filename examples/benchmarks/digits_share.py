"""The monitor's share in a training epoch of the digits example."""

from __future__ import annotations

import statistics
import time

import lightning as L
from digits import LAYERS, DigitsCNN, digits
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_cka import CKAMonitor
from torch.utils.data import DataLoader

from benchmarks.moment import seconds, with_range

REFERENCES = {
    "without": None,
    "initial": ["initial"],
    "initial, previous, self": ["initial", "previous", "self"],
}


class EpochTimes(L.Callback):
    """Seconds from the start of each epoch to that of the next one."""

    def __init__(self):
        self.starts = []

    def on_train_epoch_start(self, trainer, module):
        self.starts.append(time.perf_counter())

    def on_train_end(self, trainer, module):
        self.starts.append(time.perf_counter())

    def epochs(self):
        """But for the first epoch, which warms up, and the last, whose end the end of training takes part in."""
        times = [end - start for start, end in zip(self.starts, self.starts[1:], strict=False)]
        return times[1:-1]


def train(references, epochs, folder):
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
    """Seconds of an epoch: the median of each run, by references."""
    runs = {name: [] for name in REFERENCES}
    for repeat in range(repeats):
        for number, (name, references) in enumerate(REFERENCES.items()):
            times = train(references, epochs, folder / f"{repeat}-{number}")
            runs[name].append(statistics.median(times))
    return runs


def rows_of(runs):
    rows = []
    for name, times in runs.items():
        shares = [100 * (1 - bare / watched) for bare, watched in zip(runs["without"], times, strict=True)]
        rows.append(
            {
                "references": name,
                "epoch": seconds(times),
                "share of the monitor, %": "–" if name == "without" else with_range(shares, "{:.1f}"),
            }
        )
    return rows
