"""Stop a Trainer at the end of its first validation, where a benchmark can call the monitor's work by hand."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import lightning as L
import torch
from lightning_cka import CKAMonitor
from lightning_cka.monitor.trainer_state import moment_of_validation
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.networks import Lit
from benchmarks.timing import timed


@dataclass
class LiveMonitor:
    """A Trainer whose first validation has just ended, and its monitor, which has logged once.

    Attributes:
        trainer: The Trainer, which is still running.
        module: The module that is trained.
        monitor: The monitor that is measured.
        start_s: Seconds of the monitor's work before the first training step. Nothing was warm.
        batches: The inputs of this process's probe batches.
        names: Names of the compared layers.
    """

    trainer: L.Trainer
    module: L.LightningModule
    monitor: CKAMonitor
    start_s: float

    def __post_init__(self):
        self.device = self.module.device
        self.session = self.monitor._session
        self.probe = self.session.probe
        self.names = self.probe.plan.names
        self.batches = [batch.data[0] for batch in self.samples()]

    def compare(self):
        """Show the model the probe set and compare it, as at the end of a validation."""
        self.session.compare(moment_of_validation(self.trainer))

    def log(self):
        """Log the results of `compare`."""
        self.session.log(moment_of_validation(self.trainer))

    def samples(self):
        """Load the probe batches of this process."""
        return self.probe.probe.batches(self.trainer.global_rank, self.trainer.world_size)

    @contextmanager
    def evaluating(self):
        """Provide the model as validation does: evaluation mode, the Trainer's precision, no gradients."""
        self.module.eval()
        with torch.inference_mode(), self.trainer.precision_plugin.val_step_context():
            yield self.module
        self.module.train()


def at_first_validation(work, network, *, samples, device, folder, precision="32-true", trainer=None, **monitor):
    """Return what ``work`` returns for a `LiveMonitor`.

    Args:
        work: A function of a `LiveMonitor`, called once in each process.
        network: The `benchmarks.networks.Network` to train.
        samples: Number of samples of the probe set.
        device: The device to train on.
        folder: The folder of the monitor's files.
        precision: The Trainer's precision.
        trainer: Further arguments of the Trainer.
        **monitor: Further arguments of the monitor.
    """
    torch.manual_seed(0)
    data = TensorDataset(network.inputs(samples), torch.zeros(samples))
    loader = DataLoader(data, batch_size=network.batch)
    sizes = {"num_samples": samples, "batch_size": network.batch, "gram_batch_size": network.batch}
    options = {"layers": network.layers, "dirpath": folder, **sizes}
    cka_monitor = CKAMonitor(**options | monitor)
    module = Lit(network.make()).to(device)
    start_s, found = [], []
    on_train_start = cka_monitor.on_train_start

    def timed_on_train_start(trainer, module):
        start_s.append(timed(lambda: on_train_start(trainer, module), module.device))

    cka_monitor.on_train_start = timed_on_train_start

    class AfterMonitor(L.Callback):
        def on_validation_epoch_end(self, trainer, module):
            found.append(work(LiveMonitor(trainer, module, cka_monitor, start_s[0])))

    L.Trainer(
        max_epochs=1, limit_train_batches=1, limit_val_batches=1, num_sanity_val_steps=0, logger=False,
        accelerator=device.type, callbacks=[cka_monitor, AfterMonitor()], enable_checkpointing=False,
        precision=precision, enable_progress_bar=False, enable_model_summary=False,
        **{"devices": 1, **(trainer or {})},
    ).fit(module, loader, loader)  # fmt: skip
    return found[0]
