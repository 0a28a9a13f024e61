"""Train with two processes, one of which lacks a layer in each validation."""

import lightning as L
import torch
from conftest import Net, blank_figures, loaders, trainer
from lightning_cka import CKAMonitor
from torch import nn


class RemovesOnOneRank(L.Callback):
    def on_validation_start(self, trainer, pl_module):
        self.net = pl_module.net
        if trainer.global_rank == 1 and not trainer.sanity_checking:
            pl_module.net = nn.Sequential(*list(self.net)[:5])

    def on_validation_end(self, trainer, pl_module):
        pl_module.net = self.net


if __name__ == "__main__":
    L.seed_everything(0)
    monitor = CKAMonitor("initial", ["net.0", "net.4", "net.5", "head"], num_samples=64)
    runner = trainer(monitor, RemovesOnOneRank(), max_epochs=1, strategy="ddp", devices=2, num_sanity_val_steps=0)
    with blank_figures():
        runner.fit(Net(), *loaders())
    torch.save(monitor.results["initial"][0].matrix, f"{runner.global_rank}.pt")
