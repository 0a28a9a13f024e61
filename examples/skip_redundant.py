"""Skip the blocks of a trained residual network whose removal changes CKA least: what happens to its accuracy?

A residual network learns scikit-learn's digits. The CKA of its blocks with each other, on training images and without
their labels, says by how much each block changes its input. Blocks are then skipped one after the other, without
further training, in the order of `CKAResult.redundancy().removable`, in random orders, in the reverse order, and from
the last block to the first. Takes about two minutes on 2 cores; --quick takes some seconds.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from cka_as_loss import paired_interval
from digits import digits
from lightning_cka import compare_models
from matplotlib import rc_context
from matplotlib.figure import Figure
from plain_cnn import minimise
from scipy.stats import spearmanr
from torch import nn
from torch.utils.data import DataLoader

PROBE_BATCH = 112
"""Training images in each probe batch: eight batches."""

COLOURS = {
    "smallest change first": "#b63679",
    "random order": "#8a8f94",
    "largest change first": "#1f4e9c",
    "last block first": "#3a8f3a",
}


class ResidualCNN(nn.Module):
    """A convolution, then blocks of the form x + convolution(ReLU(normalised x)), and a linear layer on the mean."""

    def __init__(self, depth, width):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.head = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.classifier = nn.Linear(4 * width, 10)

    def forward(self, images, skipped=()):
        x = self.stem(images)
        for place, block in enumerate(self.blocks):
            if place not in skipped:
                x = block(x)
        return self.classifier(self.head(x))


class ResidualBlock(nn.Module):
    """x + convolution(ReLU(normalised x))."""

    def __init__(self, width):
        super().__init__()
        self.branch = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x):
        return x + self.branch(x)


def train(seed, depth, width, epochs, data):
    """Return a network that was trained from this seed, in evaluation mode."""
    torch.manual_seed(seed)
    model = ResidualCNN(depth, width)
    loader = DataLoader(data, batch_size=64, shuffle=True, drop_last=True)
    batches = (batch for _ in range(epochs) for batch in loader)
    losses = (nn.functional.cross_entropy(model(images), labels) for images, labels in batches)
    return minimise(model, losses, epochs * len(loader), max_lr=3e-3, weight_decay=0.01)


def redundancy_of(model, data):
    """Return which blocks are redundant, from training images."""
    loader = DataLoader(data, batch_size=PROBE_BATCH, shuffle=True, drop_last=True)
    return compare_models(model, model, loader, ["stem", "blocks.*"], progress_bar=False).redundancy()


def accuracy(model, data, skipped=()):
    """Return the accuracy in % without some blocks."""
    images, labels = data[:]
    with torch.no_grad():
        return 100 * (model(images, skipped).argmax(1) == labels).double().mean().item()


def accuracies_along(model, data, order):
    """Return the accuracies without the first k blocks of an order, for k = 0, 1, ..., all but one."""
    return [accuracy(model, data, set(order[:count])) for count in range(len(order))]


def measure(seed, args, training, validation):
    """Train one network, and return the accuracies by order, and the changes and the lost accuracy of single blocks."""
    model = train(seed, args.depth, args.width, args.epochs, training)
    found = redundancy_of(model, training)
    order = [int(step.layer.rpartition(".")[2]) for step in found.removable]
    random = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(order), generator=random).tolist() for _ in range(args.random_orders)]
    along_random = [accuracies_along(model, validation, each) for each in orders]
    curves = {
        "smallest change first": accuracies_along(model, validation, order),
        "random order": [statistics.mean(values) for values in zip(*along_random, strict=True)],
        "largest change first": accuracies_along(model, validation, order[::-1]),
        "last block first": accuracies_along(model, validation, sorted(order, reverse=True)),
    }
    whole = curves["random order"][0]
    changes = {int(step.layer.rpartition(".")[2]): step.change for step in found.consecutive}
    single = [(change, whole - accuracy(model, validation, {place})) for place, change in changes.items()]
    print(f"Seed {seed}: {whole:.1f} %; blocks of alike layers: {[len(block) for block in found.blocks]}")
    return found, curves, single


def print_table(curves):
    """Print mean accuracies by the number of skipped blocks, and paired differences with their 95 % intervals."""
    seeds, depth = len(curves), len(curves[0]["random order"])
    print(
        f"\nValidation accuracy in % without some blocks, mean of {seeds} networks, and differences (95 % intervals):"
    )
    heads = "  ".join(f"{name.split()[0]:>8}" for name in COLOURS)
    print(f"  {'skipped':>7}  {heads}  {'to random':>13}  {'to largest':>13}  {'to last':>13}")
    for count in range(depth):
        columns = [[curve[name][count] for curve in curves] for name in COLOURS]
        means = "  ".join(f"{statistics.mean(values):8.1f}" for values in columns)
        first, *others = columns
        gains = [paired_interval([a - b for a, b in zip(first, other, strict=True)]) for other in others]
        line = "  ".join(f"{mean:+6.1f} ± {half:4.1f}" for mean, half in gains)
        print(f"  {count:7}  {means}  {line}")


def print_single(singles):
    """Print how the changes rank the blocks by the accuracy that is lost without one of them."""
    correlations = [float(spearmanr(*zip(*single, strict=True)).statistic) for single in singles]
    mean, half = paired_interval(correlations)
    print(
        f"\nRank correlation of a block's 1 - CKA and the accuracy lost without it alone: {mean:.2f} ± {half:.2f} "
        f"(by seed: {', '.join(f'{each:.2f}' for each in correlations)})"
    )
    for limit in (1.0, 0.01):
        losses = [loss for single in singles for change, loss in single if change < limit]
        if losses:
            print(
                f"Without one of the {len(losses)} blocks whose 1 - CKA is below {limit:g}, the accuracy falls by "
                f"{min(losses):.1f} to {max(losses):.1f} points (median {statistics.median(losses):.1f})."
            )
    changes = [change for single in singles for change, _ in single]
    print(f"1 - CKA of the blocks: {min(changes):.3f} to {max(changes):.3f}.")


def draw(curves, singles):
    """Return a figure: accuracy over the number of skipped blocks, and the loss without each block alone."""
    with rc_context({"font.size": 8, "axes.titlesize": 8}):
        figure = Figure(figsize=(6.8, 2.8), dpi=200, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
        depth = len(curves[0]["random order"])
        for name, colour in COLOURS.items():
            intervals = [paired_interval([curve[name][count] for curve in curves]) for count in range(depth)]
            means = [mean for mean, _ in intervals]
            left.fill_between(
                range(depth),
                [mean - half for mean, half in intervals],
                [min(mean + half, 100) for mean, half in intervals],
                color=colour,
                alpha=0.2,
                lw=0,
            )
            left.plot(range(depth), means, "o-", color=colour, ms=3, lw=1, label=name)
        left.axhline(10, color="black", lw=0.8, ls=":")
        left.set(xlabel="Blocks skipped", ylabel="Validation accuracy (%)\n(dotted: chance)", ylim=(0, 102))
        left.legend(frameon=False)
        for seed, single in enumerate(singles):
            right.plot(*zip(*single, strict=True), "o", ms=3, alpha=0.7, color=f"C{seed}", label=f"seed {seed}")
        right.set(xlabel="1 - CKA of the block's input and output", ylabel="Accuracy lost without it alone (points)")
        right.legend(frameon=False, fontsize=6)
        for ax in (left, right):
            ax.spines[["top", "right"]].set_visible(False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8, help="number of networks")
    parser.add_argument("--depth", type=int, default=12, help="number of blocks")
    parser.add_argument("--width", type=int, default=16, help="number of channels")
    parser.add_argument("--epochs", type=int, default=20, help="epochs to train each network")
    parser.add_argument("--random-orders", type=int, default=10, help="random orders for each network")
    parser.add_argument("--quick", action="store_true", help="2 seeds, 8 epochs, 8 channels and 1 random order")
    parser.add_argument("--output", type=Path, default=Path("runs/skip_redundant"), help="folder for the figures")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.epochs, args.width, args.random_orders = 2, 8, 8, 1

    training, validation = digits()
    measured = [measure(seed, args, training, validation) for seed in range(args.seeds)]
    found, curves, singles = zip(*measured, strict=True)
    print_table(curves)
    print_single(singles)

    args.output.mkdir(parents=True, exist_ok=True)
    for name, figure in (("skip_redundant", draw(curves, singles)), ("redundancy", found[0].plot()[0])):
        path = args.output / f"{name}.png"
        figure.savefig(path)
        print(f"Figure: {path}")


if __name__ == "__main__":
    main()
