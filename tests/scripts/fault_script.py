"""Run by test_faults.py: train two processes, one of which has a fault in the second epoch."""

import os
import signal
import sys
import time
from pathlib import Path

import lightning as L
import torch
from conftest import Net, blank_figures, loaders
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning_cka import CKAMonitor


class Faulty(Net):
    fault = ""

    def reach(self, place):
        if self.current_epoch != 1:
            return
        if self.fault == place and self.global_rank == 1:
            raise RuntimeError("a fault of process 1")
        if self.fault == f"sigterm in {place}" and not self.trainer.received_sigterm:
            if self.global_rank == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            # Lightning's signal handler talks to the other process, which must wait for it here.
            while not self.trainer.received_sigterm:
                time.sleep(0.01)

    def training_step(self, batch, batch_idx):
        if batch_idx == 1:
            self.reach("training_step")
        return super().training_step(batch, batch_idx)


class Wrong(Logger):
    """A logger that raises when it gets an image."""

    name, version = "wrong", "0"

    def log_hyperparams(self, params):
        pass

    def log_metrics(self, metrics, step=None):
        pass

    def log_image(self, key, images, step=None):
        raise RuntimeError("a fault")


class Watch(Callback):
    def on_exception(self, trainer, module, exception):
        hooks = any(m._forward_hooks for m in module.modules())
        state = f"{type(exception).__name__}, {'some' if hooks else 'no'} hooks"
        Path(f"ended-{trainer.global_rank}").write_text(state)


def show(module, batch):
    module.reach("pass")
    return module(batch[0])


def main():
    torch.set_num_threads(1)
    L.seed_everything(0, workers=True, verbose=False)
    model = Faulty()
    model.fault = sys.argv[1]
    folder = Path("folder")
    if model.fault == "output":
        folder.touch()
    monitor = CKAMonitor(["initial", "previous"], forward_fn=show, dirpath=folder)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        callbacks=[monitor, Watch()],
        logger=Wrong() if model.fault == "output" else False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with blank_figures():
        trainer.fit(model, *loaders())
    Path(f"done-{trainer.global_rank}").write_text(f"{len(monitor.results['previous'])} results")


if __name__ == "__main__":
    main()
