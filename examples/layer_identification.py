"""Which similarity measure finds the corresponding layer in a network that was trained from another seed?

A small version of Table 2 of Kornblith et al. 2019 (https://arxiv.org/abs/1905.00414): plain CNNs on scikit-learn's
digits instead of CIFAR-10. CKA finds most layers, CCA finds few. The package's other measures are compared too: mutual
nearest neighbours, RSA and the CKA of hat matrices (ridge). Takes two to three minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import itertools
from math import isnan, nan
from pathlib import Path
from typing import NamedTuple

import torch
from digits import digits
from lightning_cka import MinibatchCKA, MinibatchMutualKNN, MinibatchRidge, MinibatchRSA
from lightning_cka.hsic.kernels import RBF
from matplotlib import rc_context
from matplotlib.figure import Figure
from plain_cnn import PlainCNN, minimise
from torch import Tensor, nn
from torch.utils.data import DataLoader

PAPER = {
    "CCA (mean ρ)": 1.4,
    "CCA (R²)": 10.6,
    "SVCCA (mean ρ)": 9.9,
    "SVCCA (R²)": 15.1,
    "Linear regression": 45.4,
    "Ridge CKA": nan,
    "RSA": nan,
    "Mutual kNN": nan,
    "CKA (RBF 0.2)": 80.6,
    "CKA (RBF 0.4)": 99.1,
    "CKA (RBF 0.8)": 99.3,
    "CKA (linear)": 99.3,
}
"""Layers identified in the paper, in %, for 10 networks of 10 layers; nan: it does not have the measure. HSIC and PWCCA
are left out."""

KERNELS = {f"CKA (RBF {threshold})": RBF(threshold) for threshold in (0.2, 0.4, 0.8)} | {"CKA (linear)": "linear"}

SECOND_OPINIONS = {"Ridge CKA": MinibatchRidge, "RSA": MinibatchRSA, "Mutual kNN": MinibatchMutualKNN}


def train(seed, width, epochs, data):
    """Return a network of seven convolutions that was trained from this seed, in evaluation mode.

    All its layers have 16 * width features, so that no layer is favoured for its size.
    """
    torch.manual_seed(seed)
    model = PlainCNN([1, *[width] * 5, *[4 * width] * 2], strides=(2, 1, 1, 1, 1, 2, 1))
    # The last batch has one sample, which is too few for batch normalisation: drop it.
    loader = DataLoader(data, batch_size=64, shuffle=True, drop_last=True)
    batches = (batch for _ in range(epochs) for batch in loader)
    losses = (nn.functional.cross_entropy(model(images)[0], labels) for images, labels in batches)
    return minimise(model, losses, epochs * len(loader), max_lr=3e-3, weight_decay=1)


class Decomposition(NamedTuple):
    """The singular value decomposition X = Q diag(s) V^T of a layer's centered activations.

    Attributes:
        q: (n, r), the left singular vectors.
        s: (r,), the singular values.
        kept: Number of singular vectors with 99 % of the variance, for SVCCA.
    """

    q: Tensor
    s: Tensor
    kept: int


def decompose(activations):
    """Return the decomposition of a layer's activations (n, ...)."""
    x = activations.flatten(1).double()
    q, s, _ = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    rank = int((s > 1e-6 * s[0]).sum())  # Smaller singular values are rounding errors of float32.
    explained = s.square().cumsum(0) / s.square().sum()
    return Decomposition(q[:, :rank].float(), s[:rank].float(), int((explained < 0.99).sum()) + 1)


def similarities(networks, metric_of, **options):
    """Return a measure (N, N, L, L) of N networks with L layers, from one batch as in the paper.

    Args:
        networks: By network, the activations of its layers.
        metric_of: The class of the metric.
        **options: Arguments of the metric.
    """
    count, depth = len(networks), len(networks[0])
    metric = metric_of(count * depth, **options)
    metric.update([activations for network in networks for activations in network])
    return metric.compute().reshape(count, depth, count, depth).transpose(1, 2)


def regression_and_cca(networks):
    """Return linear regression, CCA and SVCCA, (N, N, L, L) each, by the formulas in Table 1 of the paper."""
    count, depth = len(networks), len(networks[0])
    layers = [[decompose(activations) for activations in network] for network in networks]
    names = ("Linear regression", *(f"{name} ({value})" for name in ("CCA", "SVCCA") for value in ("R²", "mean ρ")))
    maps = {name: torch.zeros(count, count, depth, depth) for name in names}
    for a, b in itertools.combinations(range(count), 2):
        for (i, x), (j, y) in itertools.product(enumerate(layers[a]), enumerate(layers[b])):
            product = x.q.T @ y.q
            regression = maps["Linear regression"]  # Predicts the first network's layer from the second's.
            regression[a, b, i, j] = (x.s[:, None] * product).square().sum() / x.s.square().sum()
            regression[b, a, j, i] = (product * y.s).square().sum() / y.s.square().sum()
            for name, m in (("CCA", product), ("SVCCA", product[: x.kept, : y.kept])):
                squared, rho = maps[f"{name} (R²)"], maps[f"{name} (mean ρ)"]
                squared[a, b, i, j] = squared[b, a, j, i] = m.square().sum() / min(m.shape)
                rho[a, b, i, j] = rho[b, a, j, i] = torch.linalg.matrix_norm(m, "nuc") / min(m.shape)
    return maps


def percent_identified(maps):
    """Return (N, N): % of the layers in network i whose most similar layer in network j is at the same depth."""
    return 100 * (maps.argmax(-1) == torch.arange(maps.shape[-1])).double().mean(-1)


def mean_and_error(values):
    """Return the mean over ordered pairs of different networks, and its jackknife standard error over networks."""
    n = len(values)
    values = values - values.diag().diag()
    mean = values.sum() / (n * (n - 1))
    without_one = (values.sum() - values.sum(0) - values.sum(1)) / ((n - 1) * (n - 2))
    return mean.item(), ((n - 1) / n * (without_one - mean).square().sum()).sqrt().item()


def draw(averages, accuracies):
    """Return a figure: three similarity maps above, the layers identified by each measure below."""
    with rc_context({"font.size": 8, "axes.titlesize": 8}):
        figure = Figure(figsize=(6.8, 6.0), dpi=200, layout="constrained")
        top, bottom = figure.subfigures(2, height_ratios=[1.1, 1])
        axes = top.subplots(1, 3, sharey=True)
        for ax, name in zip(axes, ("CKA (linear)", "Linear regression", "CCA (R²)"), strict=True):
            depth = len(averages[name])
            extent = (0.5, depth + 0.5) * 2
            image = ax.imshow(averages[name], "magma", vmin=0, vmax=1, origin="lower", extent=extent)
            best = averages[name].argmax(1) + 1
            ax.plot(best, range(1, depth + 1), "o", color="white", mec="black", ms=4, label="Most similar in its row")
            ax.set(title=name, xlabel="Layer of the other network", xticks=range(1, depth + 1))
        axes[0].set(ylabel="Layer of one network", yticks=range(1, depth + 1))
        top.colorbar(image, ax=axes, label="Similarity", pad=0.02, shrink=0.85)
        top.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False)

        ax = bottom.subplots()
        means, errors = zip(*accuracies.values(), strict=True)
        rows = torch.arange(len(PAPER))
        error_bars = {"lw": 0.8, "capsize": 2}
        ax.barh(rows + 0.2, means, 0.4, xerr=errors, error_kw=error_bars, color="#b63679", label="Digits (ours)")
        ax.barh(rows - 0.2, PAPER.values(), 0.4, color="#c8ccd0", label="CIFAR-10 (Kornblith et al. 2019)")
        ax.axvline(100 / depth, color="black", lw=0.8, ls=":", label="Chance (ours)")
        ax.set(yticks=rows, yticklabels=PAPER, xlabel="Layers identified (%)", xlim=(0, 104))
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="lower right")
    return figure


def print_accuracies(accuracies, pairs, chance):
    """Print the layers that each measure identifies, beside those of the paper."""
    print(f"\nLayers identified in %, over {pairs} ordered pairs of networks (chance: {chance:.1f}):")
    print(f"  {'':18} {'digits':>12}  CIFAR-10 (paper)")
    for name, (mean, error) in accuracies.items():
        print(f"  {name:18} {mean:5.1f} ± {error:4.1f}  {'–' if isnan(PAPER[name]) else PAPER[name]:>5}")


def print_mistakes(maps):
    """Print which layers linear CKA finds, and how far off the others are, from its maps (pairs, L, L)."""
    average, depth = maps.mean(0), maps.shape[-1]
    distance = (maps.argmax(-1) - torch.arange(depth)).abs()
    by_layer = "  ".join(f"{100 * fraction:.0f}" for fraction in (distance == 0).double().mean(0))
    near, far = (100 * chosen.double().mean() for chosen in (distance == 1, distance > 1))
    same = average.diagonal().mean()
    neighbours = torch.cat([average.diagonal(1), average.diagonal(-1)]).mean()
    print(
        f"\nCKA (linear) identifies each layer, from first to last, in %: {by_layer}\n"
        f"It chooses a neighbour of the right layer in {near:.1f} %, and another layer in {far:.1f} %.\n"
        f"The mean CKA of corresponding layers is {same:.3f}, that of neighbours {neighbours:.3f}.\n"
        "In a small network on 8x8 images, neighbouring layers differ little, so the paper's values are higher."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=6, help="number of networks, each with its own seed")
    parser.add_argument("--epochs", type=int, default=15, help="epochs to train each network")
    parser.add_argument("--width", type=int, default=48, help="channels of the first convolution")
    parser.add_argument("--output", type=Path, default=Path("runs/layer_identification"), help="folder for the figure")
    args = parser.parse_args()

    training, validation = digits()
    images, labels = validation[:]
    networks = []
    for seed in range(args.networks):
        model = train(seed, args.width, args.epochs, training)
        with torch.no_grad():
            logits, activations = model(images)
        print(f"Network {seed}: validation accuracy {100 * (logits.argmax(1) == labels).double().mean():.1f} %")
        networks.append(activations)

    maps = regression_and_cca(networks)
    for name, kernel in KERNELS.items():  # Biased, as in the paper.
        maps[name] = similarities(networks, MinibatchCKA, kernel=kernel, unbiased=False)
    maps |= {name: similarities(networks, metric_of) for name, metric_of in SECOND_OPINIONS.items()}
    different = ~torch.eye(args.networks, dtype=torch.bool)
    averages = {name: values[different].mean(0) for name, values in maps.items()}
    accuracies = {name: mean_and_error(percent_identified(maps[name])) for name in PAPER}
    print_accuracies(accuracies, pairs=int(different.sum()), chance=100 / len(networks[0]))
    print_mistakes(maps["CKA (linear)"][different])

    path = args.output / "layer_identification.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(averages, accuracies).savefig(path)
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
