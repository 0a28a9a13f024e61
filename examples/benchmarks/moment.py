"""A monitor at the end of a validation, where its work can be called again by hand, and how that is measured."""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning_cka import CKAMonitor
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.networks import Lit


@dataclass
class Moment:
    """What is there when a Trainer's first validation has ended, and its monitor has logged."""

    trainer: L.Trainer
    module: L.LightningModule
    monitor: CKAMonitor
    start_s: float
    """What the monitor did before the first step took so long, the first time: nothing is warm."""

    def __post_init__(self):
        self.device = self.module.device
        self.session = self.monitor._session
        self.probe = self.session.probe
        self.names = self.probe.plan.names
        # The inputs of this process's probe batches.
        self.batches = [batch.data[0] for batch in self.samples()]

    def samples(self):
        """The probe batches, loaded anew."""
        return self.probe.probe.batches(self.trainer.global_rank, self.trainer.world_size)

    @contextmanager
    def evaluating(self, model=None):
        """As in validation: in evaluation mode and in the Trainer's precision, without gradients."""
        model = self.module if model is None else model
        model.eval()
        with torch.inference_mode(), self.trainer.precision_plugin.val_step_context():
            yield model
        model.train()


def at_validation(work, network, *, samples, device, folder, precision="32-true", trainer=None, **monitor):
    """What ``work`` returns, called once with a `Moment`.

    Args:
        work: called on each process.
        network: a `benchmarks.networks.Network`.
        samples: of the probe set.
        device: of the Trainer.
        folder: of the monitor's files.
        precision: of the Trainer.
        trainer: further arguments of the Trainer.
        **monitor: further arguments of the monitor.
    """
    torch.manual_seed(0)
    data = TensorDataset(network.inputs(samples), torch.zeros(samples))
    loader = DataLoader(data, batch_size=network.batch)
    options = {"layers": network.layers, "num_samples": samples, "batch_size": network.batch, "dirpath": folder}
    watch = CKAMonitor(**options | monitor)
    module = Lit(network.make()).to(device)
    start, found = [], []
    begin = watch.on_train_start

    def timed_begin(trainer, module):
        start.append(timed(lambda: begin(trainer, module), module.device))

    watch.on_train_start = timed_begin

    class AfterMonitor(L.Callback):
        def on_validation_epoch_end(self, trainer, module):
            found.append(work(Moment(trainer, module, watch, start[0])))

    L.Trainer(
        max_epochs=1, limit_train_batches=1, limit_val_batches=1, num_sanity_val_steps=0, logger=False,
        accelerator=device.type, callbacks=[watch, AfterMonitor()], enable_checkpointing=False, precision=precision,
        enable_progress_bar=False, enable_model_summary=False, **{"devices": 1, **(trainer or {})},
    ).fit(module, loader, loader)  # fmt: skip
    return found[0]


def timed(fn, device):
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    fn()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(works, repeats, device):
    """Seconds of each of the works, by name, in ``repeats`` rounds; a first round warms up."""
    runs = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            seconds = timed(work, device)
            if repeat:
                runs[name].append(seconds)
    return runs


def peak_memory(fn, device):
    """Bytes of tensors allocated at once above what was there before."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        fn()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        fn()
    current = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            current += event.nbytes()
            peak = max(peak, current)
    return peak


def ratios(over, under):
    """Of runs that were made in turns."""
    return [a / b for a, b in zip(over, under, strict=True)]


def differences(over, under):
    return [a - b for a, b in zip(over, under, strict=True)]


def seconds(values):
    """The median, in a unit that suits it."""
    value = statistics.median(values) if isinstance(values, list) else values
    if abs(value) < 0.001:
        return f"{1e6 * value:.1f} µs"
    if abs(value) < 0.1:
        return f"{1000 * value:.1f} ms"
    return f"{value:.2f} s" if abs(value) < 10 else f"{value:.1f} s"


def with_range(values, form="{:.2f}"):
    """The median, with the smallest and the largest."""
    middle, low, high = (form.format(each) for each in (statistics.median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low}–{high})"


def mib(count):
    return f"{count / 2**20:.1f}"


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown, with a column per key."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines)
