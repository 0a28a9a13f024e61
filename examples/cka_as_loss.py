"""Distil the layers of a large network into a small one, with CKA as a loss, and compare with plain training.

The teacher sees all labels of scikit-learn's digits. The student sees few of them, and the other images without labels.
`lightning_cka.functional.cka` is differentiable: 1 - CKA of a layer of the student and a layer of the teacher can be
minimised, whatever their widths. Takes about a minute on 2 cores; --quick takes some seconds.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from digits import digits
from lightning_cka.functional import cka
from matplotlib import rc_context
from matplotlib.figure import Figure
from plain_cnn import PlainCNN, minimise
from scipy.stats import t as student_t
from torch import nn

BATCH = 128
"""Images in each batch. The error of CKA falls with the batch size."""


def distillation_loss(activations, teacher_activations):
    """Return the mean over layers of 1 - CKA of student and teacher, on one batch."""
    pairs = zip(activations, teacher_activations, strict=True)
    return torch.stack([1 - cka(student, teacher) for student, teacher in pairs]).mean()


def train(seed, width, steps, images, labels, labelled, teacher=None, weight=0.0):
    """Return a network in evaluation mode.

    Args:
        seed: Seed of the initial weights and of the batches, the same with and without a teacher.
        width: Channels of the first convolution.
        steps: Number of training steps.
        images: All training images.
        labels: Their labels.
        labelled: Indices of the images whose labels may be used.
        teacher: Network whose layers the student shall resemble. None: plain training.
        weight: Weight of the distillation loss.
    """
    torch.manual_seed(seed)
    model = PlainCNN([1, width, 2 * width, 2 * width], strides=(1, 2, 2))

    def losses():
        for _ in range(steps):
            chosen = labelled[torch.randint(len(labelled), (BATCH,))]
            others = torch.randint(len(images), (BATCH,))
            loss = nn.functional.cross_entropy(model(images[chosen])[0], labels[chosen])
            # Also without a teacher: batch normalisation sees these images, too.
            activations = model(images[others])[1]
            if teacher is not None:
                with torch.no_grad():
                    targets = teacher(images[others])[1]
                loss = loss + weight * distillation_loss(activations, targets)
            yield loss

    return minimise(model, losses(), steps, max_lr=1e-2, weight_decay=1e-2)


def evaluate(model, images, labels, teacher):
    """Return the accuracy in %, and the mean CKA of the layers with those of the teacher, on validation images."""
    with torch.no_grad():
        logits, activations = model(images)
        similarity = 1 - distillation_loss(activations, teacher(images)[1])
    return 100 * (logits.argmax(1) == labels).double().mean().item(), similarity.item()


def paired_interval(differences):
    """Return the mean of paired differences, and half the width of its 95 % interval (Student's t over the seeds)."""
    count = len(differences)
    half = student_t.ppf(0.975, count - 1) * statistics.stdev(differences) / count**0.5
    return statistics.mean(differences), float(half)


def print_table(results, teacher_accuracy):
    """Print accuracies by number of labels, from (plain, distilled) pairs of `evaluate` by seed."""
    print(
        f"\nThe teacher's validation accuracy is {teacher_accuracy:.1f} %. Mean and standard deviation over the seeds,"
    )
    print("and the paired difference with its 95 % interval:")
    print(f"  {'labels':>6}  {'plain':>12}  {'with CKA':>12}  {'difference':>12}   CKA with the teacher")
    for count, pairs in results.items():
        plain, distilled = ([pair[arm][0] for pair in pairs] for arm in (0, 1))
        similar = [statistics.mean(pair[arm][1] for pair in pairs) for arm in (0, 1)]
        mean, half = paired_interval([b - a for a, b in zip(plain, distilled, strict=True)])
        columns = "  ".join(f"{statistics.mean(v):5.1f} ± {statistics.stdev(v):4.1f}" for v in (plain, distilled))
        print(f"  {count:6}  {columns}  {mean:+5.1f} ± {half:4.1f}   {similar[0]:.2f} -> {similar[1]:.2f}")


def draw(results, teacher_accuracy):
    """Return a figure: one line per seed, from plain training to training with the distillation loss."""
    with rc_context({"font.size": 8, "axes.titlesize": 8}):
        figure = Figure(figsize=(1.6 * len(results) + 1, 2.6), dpi=200, layout="constrained")
        axes = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
        for ax, (count, pairs) in zip(axes, results.items(), strict=True):
            for plain, distilled in pairs:
                ax.plot([0, 1], [plain[0], distilled[0]], "o-", color="#b63679", alpha=0.6, ms=3, lw=0.8)
            ax.axhline(teacher_accuracy, color="black", lw=0.8, ls=":")
            ax.set(title=f"{count} labels", xticks=[0, 1], xticklabels=["plain", "with CKA"], xlim=(-0.3, 1.3))
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylabel("Validation accuracy (%)\n(dotted: teacher)")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6, help="number of students for each number of labels")
    parser.add_argument("--labels", type=int, nargs="+", default=[20, 50, 200], help="numbers of labelled images")
    parser.add_argument("--steps", type=int, default=200, help="training steps of the teacher and of each student")
    parser.add_argument("--weight", type=float, default=1.0, help="weight of the distillation loss")
    parser.add_argument("--quick", action="store_true", help="3 seeds, 50 labels and 60 steps")
    parser.add_argument("--output", type=Path, default=Path("runs/cka_as_loss"), help="folder for the figure")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.labels, args.steps = 3, [50], 60

    training, validation = digits()
    (images, labels), (val_images, val_labels) = training[:], validation[:]
    teacher = train(0, 32, args.steps, images, labels, torch.arange(len(images)))
    teacher_accuracy, _ = evaluate(teacher, val_images, val_labels, teacher)
    results = {count: [] for count in args.labels}
    for count, seed in ((count, seed) for count in args.labels for seed in range(args.seeds)):
        # Each seed has labels of its own, so that the spread includes their choice.
        labelled = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
        options = {"seed": seed + 1, "width": 4, "steps": args.steps, "labelled": labelled}
        students = [
            train(images=images, labels=labels, teacher=t, weight=args.weight, **options) for t in (None, teacher)
        ]
        results[count].append([evaluate(student, val_images, val_labels, teacher) for student in students])
    print_table(results, teacher_accuracy)

    path = args.output / "cka_as_loss.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(results, teacher_accuracy).savefig(path)
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
