"""Self-supervised training whose representations collapse onto few directions: the effective rank shows it early.

Networks learn scikit-learn's digits without labels, as in VICReg (Bardes et al. 2022,
https://arxiv.org/abs/2105.04906): two distorted views of an image shall have the same representation. A variance term
keeps each of its dimensions from shrinking, and a covariance term keeps the dimensions from saying the same. Without
the covariance term, the representation collapses, although each dimension varies as it shall. The flags of
`CKAMonitor(log_ranks=True)` name the layer, and early stopping ends the run. Without both terms, all representations
shrink to one point evenly: the effective rank does not depend on the scale, and does not show this.

Takes about two minutes on 2 cores for five seeds; --quick takes some seconds.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings
from pathlib import Path

import lightning as L
import torch
from digits import digits
from lightning.pytorch.callbacks import EarlyStopping
from lightning_cka import CKAMonitor, rank_history
from lightning_cka.plotting import plot_ranks
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

LAYERS = ["encoder.?", "projector"]

RUNS = {"both terms": ("variance", "covariance"), "no covariance term": ("variance",), "neither term": ()}


class Twins(L.LightningModule):
    """An encoder of three convolutions and a projector, which learn that two views of an image are alike."""

    def __init__(self, terms, width=16, dimension=32):
        super().__init__()
        self.terms = terms
        self.encoder = nn.Sequential(
            self._block(1, width), self._block(width, 2 * width, stride=2), self._block(2 * width, 4 * width, stride=2)
        )
        self.projector = nn.Sequential(
            nn.Linear(4 * width, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, dimension)
        )

    def _block(self, inputs, outputs, stride=1):
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, images):
        return self.projector(self.encoder(images).mean((2, 3)))

    def training_step(self, batch, batch_idx):
        views = [self(distorted(batch[0])) for _ in range(2)]
        loss = 25 * mse_loss(*views)
        for view in views:
            deviations = view - view.mean(0)
            if "variance" in self.terms:
                loss = loss + 12.5 * (1 - (deviations.var(0) + 1e-4).sqrt()).relu().mean()
            if "covariance" in self.terms:
                covariance = deviations.T @ deviations / (len(view) - 1)
                loss = loss + 10 * (covariance - covariance.diagonal().diag()).square().sum() / len(covariance)
        self.log("deviation", views[0].std(0).mean(), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def distorted(images):
    """Return images that are shifted by up to a pixel, darker or brighter, and noisy."""
    count, places = len(images), torch.arange(8)
    rows, columns = torch.randint(0, 3, (2, count, 1, 1))
    padded = nn.functional.pad(images[:, 0], (1, 1, 1, 1))
    moved = padded[torch.arange(count)[:, None, None], rows + places[:, None], columns + places][:, None]
    return moved * (0.6 + 0.8 * torch.rand(count, 1, 1, 1)) + 0.1 * torch.randn_like(moved)


def train(terms, seed, epochs, data, folder, *callbacks):
    """Train without labels, and return the network, its Trainer and the results of the monitor."""
    L.seed_everything(seed, verbose=False)
    network = Twins(terms)
    monitor = CKAMonitor(layers=LAYERS, compare_at_start=True, log_ranks=True, dirpath=folder)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[monitor, *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(data[0], 64, shuffle=True, drop_last=True)
    trainer.fit(network, loader, DataLoader(data[1], 128))
    return network, trainer, monitor.results["initial"]


def accuracy(network, data):
    """Return the accuracy of a linear classifier of the representations, in percent."""
    network.eval()
    with torch.no_grad():
        (x, labels), (others, expected) = (
            (network(images), labels) for images, labels in (next(iter(DataLoader(each, len(each)))) for each in data)
        )
    mean, deviation = x.mean(0), x.std(0)
    classifier = LogisticRegression(max_iter=2000).fit((x - mean) / deviation, labels)
    return 100 * classifier.score((others - mean) / deviation, expected)


def flagged(results):
    """Return the first epoch in which the projector is flagged for its rank; None if there is none."""
    flags = ((each.epoch, flag) for each in results for flag in each.flags)
    return next((epoch for epoch, flag in flags if (flag.reason, flag.layer) == ("rank_loss", "projector")), None)


def mean_with_interval(values):
    """Return the mean over seeds, with half the width of a 95 % interval if there are three or more."""
    if len(values) < 3:
        return f"{statistics.mean(values):.1f}"
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.1f} ± {half:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="one seed and five epochs")
    parser.add_argument("--output", type=Path, default=Path("collapse"))
    options = parser.parse_args()
    seeds, epochs = (1, 5) if options.quick else (options.seeds, options.epochs)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")  # The flags are printed below.
    data = digits()
    print("Representations of 32 dimensions: 95 % intervals over seeds\n")
    print(f"{'':20}{'effective rank':>30}{'deviation of':>15}{'accuracy of':>14}")
    print(f"{'':20}{'first':>15}{'last':>15}{'a dimension':>15}{'a classifier':>14}   flagged in epoch")
    for name, terms in RUNS.items():
        found = []
        for seed in range(seeds):
            folder = options.output / f"{name.replace(' ', '-')}-{seed}"
            network, trainer, results = train(terms, seed, epochs, data, folder)
            history = rank_history(results)
            row, deviation = history.rank[-1], trainer.callback_metrics["deviation"].item()
            found.append((row[0].item(), row[-1].item(), deviation, accuracy(network, data), flagged(results)))
            if seed == 0:
                figure, _ = plot_ranks(history, title=f"Self-supervised, {name}")
                figure.savefig(options.output / f"{name.replace(' ', '-')}.png", dpi=150)
        first, last, deviations, accuracies, epochs_flagged = zip(*found, strict=True)
        when = ", ".join("never" if epoch is None else str(epoch) for epoch in epochs_flagged)
        print(
            f"{name:20}{mean_with_interval(first):>15}{mean_with_interval(last):>15}"
            f"{statistics.mean(deviations):>15.2f}{mean_with_interval(accuracies):>14}   {when}"
        )
    # With mode="max", training ends when the smallest share of a layer's largest rank so far is below the threshold.
    stopping = EarlyStopping("cka_rank/smallest_share", mode="max", patience=epochs, divergence_threshold=0.5)
    _, trainer, results = train(RUNS["no covariance term"], 0, epochs, data, options.output / "stopped", stopping)
    history = rank_history(results)
    print(f"\nEarly stopping on cka_rank/smallest_share ended it after {trainer.current_epoch} of {epochs} epochs:")
    for fall in history.falls():
        interval = f"{100 * fall.low:.0f} to {100 * fall.high:.0f} %"
        print(f"  {fall.layer} has lost {interval} of its effective rank in {fall.moment}, since {fall.peak_moment}")
    print(f"\nRanks are at most {history.num_samples - 1}. Figures: {options.output}")


if __name__ == "__main__":
    main()
