"""Make the CKA map of a trained network look as one likes, while it goes on to classify as before.

A small version of figure 5 of Davari et al. 2022 (https://arxiv.org/abs/2210.16156). A CNN learns scikit-learn's
digits. Then its weights are optimised further, for two aims: its logits shall stay those of the trained network
(distillation), and its CKA map, of all pairs of its own layers, shall become a target:

- last like first: the last layer is like the first one, and as unlike the layers before it as the first one is;
- all alike: all layers have CKA 1;
- none alike: any two layers have CKA 0.

Maps and accuracies are those of validation images, which were never trained on. The second row of the figure compares
each layer with itself as trained, by CKA and by other measures of the same Gram matrices. Takes one to two minutes
on 2 cores; --quick takes some seconds.

What differs from the paper: a small CNN with 6 layers on 900 images of 8 x 8 pixels, where the paper has larger
networks on CIFAR-10; targets of our own; the mean squared distance to the target, with a fixed weight; and unbiased
CKA. Numbers of the paper are not repeated here, because they are of other networks and other targets. The finding is
the same: the map can be changed at will, for little accuracy. It is not that nothing but CKA changes: neighbours and
Procrustes angles between layers and themselves as trained change with it. But most of what the layers were can still be
predicted from them. The flag "disagreement" fires where mutual kNN is much higher than CKA, or ridge CKA much lower.
Most layers here are not flagged, because all measures fall together. So the flag does not detect that a map was made to
order.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from digits import LAYERS, DigitsCNN, digits
from lightning_cka import CKAResult, GramBank, compare_banks
from lightning_cka.compare import PermutationTest, predictivity, procrustes
from lightning_cka.compare.flag_messages import flag_label
from lightning_cka.functional import centered_gram, cka
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader

BATCH = 128
"""Images in each step. The error of CKA falls with the batch size."""
TEMPERATURE = 2.0
"""Temperature of the distillation. A higher one gives more weight to the classes that are not the right one."""
WEIGHTS = {"last like first": 30.0, "all alike": 30.0, "none alike": 30.0}
"""Weight of the distance between map and target, by the name of the target."""
HEADS = {"cka": "CKA", "mutual_knn": "kNN", "rsa": "RSA", "ridge": "ridge"}
"""Heads of the columns of the measures that are cosines."""
CURVES = {
    "CKA": ("#0072b2", "o"),
    "mutual kNN": ("#cc79a7", "D"),
    "ridge CKA": ("black", "v"),
    "cosine of Procrustes angle": ("#009e73", "s"),
    "R² of prediction": ("#d55e00", "^"),
}
"""Colour and marker of the curves."""


class Opinions(NamedTuple):
    """What the measures say about the layers of a network and the same layers as trained.

    Attributes:
        cosines: By name, CKA with its flags, and the other measures that are cosines.
        angles: Procrustes angle by layer, with its level of chance.
        predictions: R² of the layer as trained, predicted from the layer, in the same way.
    """

    cosines: dict[str, CKAResult]
    angles: dict[str, PermutationTest]
    predictions: dict[str, PermutationTest]


class Outcome(NamedTuple):
    """What became of a network.

    Attributes:
        accuracy: Share of validation images that are classified correctly.
        itself: CKA of its layers with each other.
        opinions: What the measures say about its layers and those of the trained network.
    """

    accuracy: float
    itself: CKAResult
    opinions: Opinions


def activations(model, images):
    """Return the logits, and the outputs of the layers in order, with the graph."""
    outputs = []
    layers = [module for name, module in model.named_children() if name.startswith(("conv", "fc"))]
    handles = [layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output)) for layer in layers]
    try:
        return model(images), outputs
    finally:
        for handle in handles:
            handle.remove()


def cka_map(layers):
    """Return the CKA ``(L, L)`` of all pairs of layers. Gradients flow back to the activations."""
    grams = [centered_gram(layer) for layer in layers]
    rows, columns = torch.triu_indices(len(grams), len(grams), 1).tolist()
    pairs = zip(rows, columns, strict=True)
    values = torch.stack([cka(grams[row], grams[column], kernel="precomputed") for row, column in pairs])
    upper = torch.zeros(len(grams), len(grams)).index_put((torch.tensor(rows), torch.tensor(columns)), values)
    return upper + upper.T + torch.eye(len(grams))


def targets_of(trained):
    """Return the target maps by name, given the map ``(L, L)`` of the trained network."""
    last_like_first = trained.clone()
    last_like_first[-1, :-1] = last_like_first[:-1, -1] = trained[0, :-1]
    return {
        "last like first": last_like_first,
        "all alike": torch.ones_like(trained),
        "none alike": torch.eye(len(trained)),
    }


def train(images, labels, epochs, width):
    """Return a network in evaluation mode."""
    torch.manual_seed(0)
    model = DigitsCNN(width)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(64):
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def manipulate(trained, images, target, weight, steps):
    """Return a copy of a network that is optimised for a target map.

    The copy stays in evaluation mode, so that batch normalisation is the same function as when the map is measured.

    Args:
        trained: The network. Its logits are to be kept.
        images: Training images. Their labels are not needed.
        target: The map that the copy shall have.
        weight: Weight of the mean squared distance between map and target.
        steps: Number of steps.
    """
    torch.manual_seed(0)
    model = copy.deepcopy(trained)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(steps):
        batch = images[torch.randperm(len(images))[:BATCH]]
        with torch.no_grad():
            wanted = (trained(batch) / TEMPERATURE).log_softmax(1)
        logits, layers = activations(model, batch)
        found = (logits / TEMPERATURE).log_softmax(1)
        distillation = TEMPERATURE**2 * nn.functional.kl_div(found, wanted, log_target=True, reduction="batchmean")
        loss = distillation + weight * (cka_map(layers) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


def bank_of(model, dataset, block):
    """Return the Gram matrices of the layers, each of ``block`` samples."""
    return GramBank.from_model(model, DataLoader(dataset, batch_size=block), LAYERS, progress_bar=False)


def accuracy_of(model, dataset):
    """Return the share of images that are classified correctly."""
    images, labels = dataset[:]
    with torch.no_grad():
        return (model(images).argmax(1) == labels).double().mean().item()


def opinions_of(model, trained, dataset, permutations):
    """Return what the measures say about the layers of a network and of the trained network."""
    a, b = (bank_of(each, dataset, 128) for each in (model, trained))  # Several batches, for standard errors and flags.
    large_a, large_b = (bank_of(each, dataset, 300) for each in (model, trained))
    angles, predictions = (
        {name: measure(large_a, large_b, layers=name, permutations=permutations) for name in large_a.layers}
        for measure in (procrustes, predictivity)
    )
    return Opinions(quietly_compared(a, b, list(HEADS)), angles, predictions)


def quietly_compared(a, b, measures="cka"):
    """Return measures of two banks. The flags are printed later, instead of warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compare_banks(a, b, measures=measures)


def outcome_of(model, trained, dataset, permutations):
    """Return what became of a network."""
    bank = bank_of(model, dataset, 128)
    opinions = opinions_of(model, trained, dataset, permutations)
    return Outcome(accuracy_of(model, dataset), quietly_compared(bank, bank), opinions)


def print_map(title, matrix, names):
    """Print a map, the last layer at the top, as in the figure."""
    print(f"\n{title}")
    for name, row in reversed(list(zip(names, matrix.tolist(), strict=True))):
        print(f"  {name:6}" + "".join(f"{value:6.2f}" for value in row))
    print(" " * 8 + "".join(f"{name:>6}" for name in names))


def print_opinions(opinions):
    """Print what CKA, the other measures and the flags say about each layer and the same layer as trained."""
    heads = "".join(f"{head:>6}" for head in HEADS.values())
    print(f"  {'':6}{heads}{'angle (chance)':>16}{'R² (chance)':>16}   each layer with itself as trained")
    for name in opinions.angles:
        cells = "".join(f"{result.same_named()[name]:6.2f}" for result in opinions.cosines.values())
        for other in (opinions.angles[name], opinions.predictions[name]):
            cells += f"{other.matrix.item():8.2f} ({other.null_mean.item():5.2f})"
        print(f"  {name:6}{cells}")
    print_flags(opinions.cosines["cka"])


def print_flags(result):
    """Print the flags of a result."""
    for flag in result.flags:
        print(f"  flagged: {flag.reason}, {flag_label(flag)}")
    if not result.flags:
        print("  flagged: nothing")


def print_summary(outcomes):
    """Print how many changed layers the flag "disagreement" names, and the mean of each measure."""
    changed = [outcome.opinions for title, outcome in outcomes.items() if title != "as trained"]
    count = sum(len(opinions.angles) for opinions in changed)
    flagged = [flag for opinions in changed for flag in opinions.cosines["cka"].flags if flag.reason == "disagreement"]
    print(f"\nThe flag disagreement names {len(flagged)} of {count} layers. Means over these layers:")
    for key, head in HEADS.items():
        values = [value for opinions in changed for value in opinions.cosines[key].same_named().values()]
        print(f"  {head:6}{sum(values) / len(values):6.2f}")
    print(
        "Where all measures fall together, the layer has changed. The flag tells that CKA misleads about a layer, and "
        "not\nthat a map was made to order."
    )


def draw(outcomes):
    """Return a figure: the maps above; below, each layer with itself as trained."""
    with rc_context({"font.size": 8, "axes.titlesize": 8}):
        figure = Figure(figsize=(6.8, 4.0), dpi=200, layout="constrained")
        axes = figure.subplots(2, len(outcomes), height_ratios=[1.2, 1])
        for column, (title, outcome) in zip(axes.T, outcomes.items(), strict=True):
            image = draw_map(column[0], outcome.itself)
            column[0].set_title(f"{title.capitalize()}\naccuracy {100 * outcome.accuracy:.1f} %")
            draw_opinions(column[1], outcome.opinions)
            for ax in column:
                ax.tick_params(labelleft=ax in axes[:, 0], labelbottom=ax is column[1])
        figure.colorbar(image, ax=axes[0], label="CKA with itself", pad=0.01, shrink=0.82)
        axes[1, 0].set_ylabel("Each layer with\nitself as trained")
        figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def draw_map(ax, result):
    """Draw a map, and return its image."""
    image = ax.imshow(result.matrix, "magma", vmin=0, vmax=1, origin="lower")
    ax.set_xticks(range(len(result.layers)), result.layers)
    ax.set_yticks(range(len(result.layers)), result.layers)
    return image


def draw_opinions(ax, opinions):
    """Draw the measures by layer."""
    curves = (
        *(list(opinions.cosines[name].same_named().values()) for name in ("cka", "mutual_knn", "ridge")),
        [each.matrix.cos().item() for each in opinions.angles.values()],
        [each.matrix.item() for each in opinions.predictions.values()],
    )
    for values, (label, (colour, marker)) in zip(curves, CURVES.items(), strict=True):
        ax.plot(values, color=colour, marker=marker, ms=3.5, lw=1.2, label=label)
    ax.set_xticks(range(len(values)), list(opinions.angles), rotation=90)
    ax.set(xlim=(-0.5, len(values) - 0.5), ylim=(0, 1.04))  # Below the columns of the map.
    ax.spines[["top", "right"]].set_visible(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250, help="steps towards each target")
    parser.add_argument("--quick", action="store_true", help="a narrow network and few steps")
    parser.add_argument("--output", type=Path, default=Path("runs/manipulated_map"), help="folder for the figure")
    args = parser.parse_args()
    steps, width, epochs, permutations = (80, 8, 8, 2) if args.quick else (args.steps, 16, 20, 20)

    torch.set_num_threads(1)  # The matrices are small: threads cost more than they save.
    training, validation = digits()
    images, labels = training[:]
    trained = train(images, labels, epochs, width)
    outcomes = {"as trained": outcome_of(trained, trained, validation, permutations)}
    names = outcomes["as trained"].itself.layers
    print(f"As trained: accuracy {100 * outcomes['as trained'].accuracy:.1f} %")
    print_map("CKA of the trained network with itself", outcomes["as trained"].itself.matrix, names)
    print_opinions(outcomes["as trained"].opinions)
    for name, target in targets_of(outcomes["as trained"].itself.matrix.float()).items():
        model = manipulate(trained, images, target, WEIGHTS[name], steps)
        outcomes[name] = outcome = outcome_of(model, trained, validation, permutations)
        before = 100 * outcomes["as trained"].accuracy
        title = f"{name.capitalize()}: accuracy {before:.1f} % -> {100 * outcome.accuracy:.1f} %, "
        off = (outcome.itself.matrix - target).abs()
        print_map(f"{title}CKA differs from the target by {off.mean():.2f} on average", outcome.itself.matrix, names)
        print_opinions(outcome.opinions)

    print_summary(outcomes)
    path = args.output / "manipulated_map.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(outcomes).savefig(path)
    print(f"\nFigure: {path}")


if __name__ == "__main__":
    main()
