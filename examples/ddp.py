"""Train with DDP in two processes on a CPU. CKAMonitor needs no other settings than in one process.

Each process compares half of the probe batches. The sums over processes give the CKA of all probe samples.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning as L
from digits import LAYERS, DigitsCNN, digits
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_cka import CKAMonitor
from torch.utils.data import DataLoader


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5, help="epochs to train")
    parser.add_argument("--devices", type=int, default=2, help="number of processes")
    parser.add_argument("--output", type=Path, default=Path("runs/ddp"), help="folder for logs and figures")
    args = parser.parse_args()

    L.seed_everything(0, workers=True)
    train, validation = digits()
    monitor = CKAMonitor(["initial", "previous"], LAYERS, dirpath=args.output / "figures")
    trainer = L.Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        devices=args.devices,
        strategy="ddp" if args.devices > 1 else "auto",
        callbacks=[monitor],
        logger=TensorBoardLogger(args.output, name="tensorboard"),
        log_every_n_steps=5,
        enable_model_summary=False,
    )
    trainer.fit(DigitsCNN(), DataLoader(train, batch_size=64, shuffle=True), DataLoader(validation, batch_size=64))

    # Every process has the same results; the first one prints them.
    if trainer.is_global_zero:
        result = monitor.results["initial"][-1]
        print(f"\n{trainer.world_size} processes, {result.num_samples} probe samples in {result.num_batches} batches")
        print("CKA of each layer with the same layer before training:")
        for name, value in result.same_named().items():
            print(f"  {name:6} {value:.3f}")
        print(f"Figures: {args.output / 'figures'}")


if __name__ == "__main__":
    main()
