"""Freeze layers as they converge: a CNN and a small transformer on scikit-learn's digits, with and without.

Each seed trains each network twice, from the same weights and in the same order of samples. Times are those of one
processor core, without drawing. Takes about three minutes on 2 cores. No data are downloaded.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from pathlib import Path

import lightning as L
import torch
from digits import LAYERS, DigitsCNN, digits
from lightning_cka import CKAMonitor, FreezeConverged
from scipy.special import stdtrit
from torch import nn
from torch.utils.data import DataLoader

BATCH_SIZE = 64


class Rows(nn.Module):
    """Eight tokens of an image, one for each row, with a learned position.

    Positions begin as large as the rows. If they began close to zero, CKA would not see them grow, because it centers
    features: the layer would be frozen before it has learned them.
    """

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(8, width)
        self.position = nn.Parameter(torch.randn(8, width))

    def forward(self, images):
        return self.linear(images[:, 0]) + self.position


class RowTransformer(DigitsCNN):
    """A transformer whose tokens are the rows of an image; it trains like the CNN."""

    def __init__(self, width=64, depth=6):
        L.LightningModule.__init__(self)
        self.rows = Rows(width)
        blocks = [
            nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(depth)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, 10)

    def forward(self, images):
        return self.head(self.blocks(self.rows(images)).mean(1))


NETWORKS = {"CNN": (DigitsCNN, LAYERS), "transformer": (RowTransformer, ["rows", "blocks.*", "head"])}


class Clock(L.Callback):
    """Adds up the time of the training steps, and of all of training."""

    steps = total = 0.0

    def on_train_start(self, *args):
        self.total = -time.thread_time()

    def on_train_batch_start(self, *args):
        self.steps -= time.thread_time()

    def on_train_batch_end(self, *args):
        self.steps += time.thread_time()

    def on_train_end(self, *args):
        self.total += time.thread_time()


def train(network, seed, args, *, freezes):
    """Train once; return the accuracy, the seconds of the steps and of all of training, and what was frozen."""
    L.seed_everything(seed, workers=True, verbose=False)
    make, layers = NETWORKS[network]
    model, (training, validation), clock = make(), digits(), Clock()
    freeze = FreezeConverged(args.tolerance, args.patience)
    folder = args.output / f"{network}-{seed}"
    # Comparisons cost time, too: 512 samples in 8 batches are enough for intervals.
    options = {"num_samples": 512, "gram_batch_size": 64, "keep_banks": args.patience}
    monitor = CKAMonitor(f"previous:{args.patience}", layers, dirpath=folder, **options)
    trainer = L.Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        callbacks=[clock, monitor, freeze] if freezes else [clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(training, BATCH_SIZE, shuffle=True), DataLoader(validation, BATCH_SIZE))
    accuracy = trainer.callback_metrics["validation/accuracy"].item()
    return accuracy, clock.steps, clock.total, freeze.frozen


def interval(values):
    """Return the mean of paired differences over seeds, and half of its 95 % confidence interval."""
    spread = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return statistics.mean(values), spread * stdtrit(max(len(values) - 1, 1), 0.975)


def report(network, pairs, steps):
    """Print what freezing changed, over all seeds."""
    print(f"\n{network}, {len(pairs)} seeds, with freezing minus without (95 % confidence intervals):")
    accuracy = interval([100 * (with_[0] - without[0]) for without, with_ in pairs])
    print(f"  accuracy           {accuracy[0]:+.2f} ± {accuracy[1]:.2f} percentage points", end="")
    print(f" (without: {100 * statistics.mean(without[0] for without, _ in pairs):.2f} %)")
    for place, name in ((1, "time of the steps"), (2, "time in all      ")):
        change = interval([100 * (with_[place] / without[place] - 1) for without, with_ in pairs])
        print(f"  {name}  {change[0]:+.1f} ± {change[1]:.1f} %")
    others = [(with_[2] - with_[1]) - (without[2] - without[1]) for without, with_ in pairs]
    share = statistics.mean(other / without[1] for other, (without, _) in zip(others, pairs, strict=True))
    print(f"  A comparison takes as long as {share * steps:.0f} training steps without freezing; an epoch has {steps}.")
    layers = sorted({name for _, with_ in pairs for name in with_[3]})
    for name in layers:
        epochs = [with_[3][name][0] for _, with_ in pairs if name in with_[3]]
        print(f"  frozen: {name:9} with {len(epochs)} of {len(pairs)} seeds, after epochs {sorted(epochs)}")
    if not layers:
        print("  frozen: nothing")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=16, help="epochs to train")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--tolerance", type=float, default=0.01, help="change of CKA that does not matter")
    parser.add_argument("--patience", type=int, default=3, help="comparisons to look back")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS, help="networks to train")
    parser.add_argument("--output", type=Path, default=Path("runs/freeze_converged"), help="folder for figures")
    args = parser.parse_args()

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for network in args.networks:
        pairs = []
        for seed in range(args.seeds):
            pair = [train(network, seed, args, freezes=freezes) for freezes in (False, True)]
            pairs.append(pair)
            print(f"{network}, seed {seed}: accuracy {pair[0][0]:.4f} without, {pair[1][0]:.4f} with freezing")
        report(network, pairs, steps=-(-len(digits()[0]) // BATCH_SIZE))


if __name__ == "__main__":
    main()
