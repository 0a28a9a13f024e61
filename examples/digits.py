"""Train a small CNN on scikit-learn's digits and watch its layers change.

It logs to TensorBoard and, offline, to W&B. Takes about a minute on 2 cores. No data are downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning_cka import CKAMonitor
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

LAYERS = ["conv?", "fc?"]
"""The layers of `DigitsCNN` to compare, as patterns: the four convolution blocks and the two linear layers."""


def digits(classes=range(10)):
    """Return the training data and the validation data: images (1, 8, 8) in [0, 1] of these classes, and labels."""
    data = load_digits()
    chosen = torch.isin(torch.tensor(data.target), torch.tensor(list(classes)))
    images = torch.tensor(data.images, dtype=torch.float32)[chosen, None] / 16
    labels = torch.tensor(data.target)[chosen]
    return random_split(TensorDataset(images, labels), [0.5, 0.5], torch.Generator().manual_seed(0))


class DigitsCNN(L.LightningModule):
    """Four blocks of convolution, batch normalisation and ReLU, and two linear layers."""

    def __init__(self, width=32):
        super().__init__()
        self.conv1 = self._block(1, width)
        self.conv2 = self._block(width, width)
        self.conv3 = self._block(width, 2 * width, stride=2)
        self.conv4 = self._block(2 * width, 2 * width)
        self.fc1 = nn.Linear(2 * width * 16, 64)
        self.fc2 = nn.Linear(64, 10)

    def _block(self, inputs, outputs, stride=1):
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, images):
        x = self.conv4(self.conv3(self.conv2(self.conv1(images))))
        return self.fc2(self.fc1(x.flatten(1)).relu())

    def _loss(self, batch, stage):
        images, labels = batch
        logits = self(images)
        loss = nn.functional.cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        average = stage == "validation"  # Over the processes, if there are several.
        self.log(f"{stage}/loss", loss, sync_dist=average)
        self.log(f"{stage}/accuracy", accuracy, prog_bar=True, sync_dist=average)
        return loss

    def training_step(self, batch, batch_idx):
        return self._loss(batch, "train")

    def validation_step(self, batch, batch_idx):
        self._loss(batch, "validation")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def print_layers(result):
    """Print CKA of each layer with the same layer of the reference, and its standard error."""
    print(f"\nCKA of each layer with the same layer before training, on {result.num_samples} samples (1: unchanged):")
    errors = result.standard_error.diagonal().tolist()
    for (name, value), error in zip(result.same_named().items(), errors, strict=True):
        print(f"  {name:6} {value:.3f} ± {error:.3f}  {'#' * round(40 * max(value, 0))}")


def print_files(folder, last_epoch):
    """Print the paths of the figures, and a command that compares two epochs."""
    print("\nFigures:")
    last_heatmaps = f"*/heatmap-epoch={last_epoch:03d}-*.png"
    summaries = ("*/drift.png", "*-evolution.gif", "trajectory/overview.png", "trajectory/convergence.png")
    for pattern in (last_heatmaps, *summaries):
        for path in sorted(folder.glob(pattern)):
            print(f"  {path}")
    banks = folder / "banks"
    (last_bank,) = banks.glob(f"epoch={last_epoch:03d}-*")
    print("\nCompare the first and the last epoch again, from the command line:")
    print(f"  lightning-cka compare {banks / 'initial.safetensors'} {last_bank}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15, help="epochs to train")
    parser.add_argument("--output", type=Path, default=Path("runs/digits"), help="folder for logs and figures")
    args = parser.parse_args()

    L.seed_everything(0, workers=True)
    train, validation = digits()
    folder = args.output / "cka"
    # After each epoch, the layers are compared with the initial weights, with the epoch before, and with each other.
    # trajectory=True also keeps every epoch on disk, so that any two epochs can be compared later.
    monitor = CKAMonitor(["initial", "previous", "self"], LAYERS, dirpath=folder, trajectory=True)
    args.output.mkdir(parents=True, exist_ok=True)  # W&B needs the folder to exist.
    tensorboard = TensorBoardLogger(args.output, name="tensorboard")
    wandb = WandbLogger(project="lightning-cka", save_dir=args.output, offline=True)
    trainer = L.Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        callbacks=[monitor],
        logger=[tensorboard, wandb],
        log_every_n_steps=5,
        enable_model_summary=False,
    )
    trainer.fit(
        DigitsCNN(),
        DataLoader(train, batch_size=64, shuffle=True),
        DataLoader(validation, batch_size=64),
    )

    print_layers(monitor.results["initial"][-1])
    print_files(folder, last_epoch=args.epochs - 1)
    print(f"\nTensorBoard: tensorboard --logdir {args.output} --samples_per_plugin images=200")
    print(f"W&B:         wandb sync {args.output}/wandb/offline-run-*")
    print(f"\nOpen in a browser: {folder / 'report.html'}")


if __name__ == "__main__":
    main()
