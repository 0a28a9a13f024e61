"""Measure what paired errors are worth: which changes between the epochs of a network are significant, and are they?

A network of 7 layers is trained for 5 epochs on made-up data. Many probe sets of 8 batches of 64 samples are drawn. For
each of them, CKA with the initial weights is computed after each epoch: 28 changes between consecutive epochs. The true
changes are those of a probe set of 40,960 samples. `CKAResult.difference` pairs both results over batches. The bands of
both results do not.
"""

from __future__ import annotations

import argparse
import copy
from itertools import pairwise

import torch
from lightning_cka import GramBank, Thresholds, compare_banks
from lightning_cka.compare.result import CKAResult
from scipy.special import stdtrit
from torch import nn

LAYERS, WIDTH, EPOCHS, BATCHES, BATCH_SIZE = 7, 32, 5, 8, 64
OFF = Thresholds(None, None, None, None)


def snapshots() -> list[nn.Module]:
    """Train a network to imitate another one, and return it before the first epoch and after each."""
    torch.manual_seed(0)
    blocks = [m for _ in range(LAYERS) for m in (nn.Linear(WIDTH, WIDTH), nn.LeakyReLU(0.1))]
    net = nn.Sequential(*blocks, nn.Linear(WIDTH, 10))
    teacher = nn.Sequential(nn.Linear(WIDTH, 64), nn.Tanh(), nn.Linear(64, 10))
    inputs = torch.randn(4096, WIDTH)
    labels = teacher(inputs).argmax(1)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    found = [copy.deepcopy(net)]
    for _ in range(EPOCHS):
        for some in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs[some]), labels[some]).backward()
            optimizer.step()
        found.append(copy.deepcopy(net))
    return found


def results_of(models: list[nn.Module], samples: torch.Tensor, batch_size: int) -> list[CKAResult]:
    """Compare each model but the first with the first."""
    names, batches = [str(2 * i) for i in range(LAYERS)], list(samples.split(batch_size))
    banks = [GramBank.from_model(model, batches, names, progress_bar=False) for model in models]
    return [compare_banks(bank, banks[0], thresholds=OFF) for bank in banks[1:]]


def diagonal(pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return pair[0].diagonal(), pair[1].diagonal()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe-sets", type=int, default=120, help="number of probe sets (default: %(default)s)")
    options = parser.parse_args()
    models = snapshots()
    truth = [
        (later.matrix - earlier.matrix).diagonal()
        for earlier, later in pairwise(results_of(models, torch.randn(40_960, WIDTH), 512))
    ]
    quantile = float(stdtrit(BATCHES - 1, 0.975))
    covered, significant, ratios = torch.zeros(2), torch.zeros(2), []
    for _ in range(options.probe_sets):
        results = results_of(models, torch.randn(BATCHES * BATCH_SIZE, WIDTH), BATCH_SIZE)
        for (earlier, later), true in zip(pairwise(results), truth, strict=True):
            change = later.difference(earlier)
            low, high = diagonal(change.confidence_interval())
            (low_1, high_1), (low_2, high_2) = (diagonal(each.confidence_interval()) for each in (earlier, later))
            unpaired = (earlier.standard_error**2 + later.standard_error**2).sqrt().diagonal()
            is_covered = (
                (low <= true) & (true <= high),
                (change.matrix.diagonal() - true).abs() <= quantile * unpaired,
            )
            covered += torch.stack(is_covered).float().mean(1)
            is_significant = ((low > 0) | (high < 0), (high_1 < low_2) | (high_2 < low_1))
            significant += torch.stack(is_significant).float().sum(1)
            ratios.append(unpaired / change.standard_error.diagonal())
    covered /= options.probe_sets * (EPOCHS - 1)
    significant /= options.probe_sets
    medians = torch.stack(ratios).reshape(options.probe_sets, -1).median(0).values
    print(f"significant of 28 changes, mean over {options.probe_sets} probe sets, no correction for their number:")
    print(f"  paired {significant[0]:.1f}, bands that do not overlap {significant[1]:.1f}")
    print(f"95 % intervals that contain the true change: paired {covered[0]:.3f}, errors added {covered[1]:.3f}")
    print(f"added errors / paired errors: {medians.min():.1f} to {medians.max():.1f}, by change")


if __name__ == "__main__":
    main()
