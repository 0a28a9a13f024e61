"""Run by test_resume.py: train, with a kill or from a checkpoint; rank 0 writes the matrices to a file."""

import argparse
import json
import os
import signal
import sys
import warnings
from pathlib import Path

import lightning as L
import lightning_cka.monitor.run_output
import torch
from conftest import Net, dataset
from ddp_script import Deterministic
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_cka import CKAMonitor
from torch.utils.data import DataLoader, TensorDataset


class Killable(Deterministic):
    kill = None

    def training_step(self, batch, batch_idx):
        if [self.global_rank, self.current_epoch, batch_idx] == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0.1 * super().training_step(batch, batch_idx)


def main(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--kill", type=json.loads, help="rank, epoch and batch of the kill, as JSON")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--summary", action="store_true", help="write tables and animations at the end")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    L.seed_everything(0, workers=True, verbose=False)
    model, reference = Killable().double(), Net().double()
    model.kill = args.kill
    x, y = dataset(72).tensors
    data = TensorDataset(x.double(), y)
    monitor = CKAMonitor(
        ["initial", 1, "previous", "self", reference],
        kernel=["linear", "rbf"],
        batch_size=8,
        dirpath=Path(args.name, "cka"),
        save_banks=True,
    )
    trainer = L.Trainer(
        max_epochs=5,
        limit_train_batches=3,
        accelerator="cpu",
        devices=args.devices,
        strategy="ddp" if args.devices > 1 else "auto",
        callbacks=[monitor, ModelCheckpoint(Path(args.name), filename="{epoch}", save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(data, batch_size=16)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model, loader, loader, ckpt_path=args.checkpoint)
    if trainer.is_global_zero:
        content = {
            "matrices": {name: [r.matrix.tolist() for r in results] for name, results in monitor.results.items()},
            "epochs": {name: [r.epoch for r in results] for name, results in monitor.results.items()},
            "restarted": [str(w.message) for w in caught if "training goes on from" in str(w.message)],
        }
        Path(f"{args.name}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    # Figures would take most of the time.
    lightning_cka.monitor.run_output.log_figures = lambda *_args: []
    lightning_cka.monitor.run_output.measures_figure = lambda *_args: {}
    if "--summary" not in sys.argv:
        lightning_cka.monitor.run_output.write_summary = lambda *_args: None
    main()
