"""When not to trust CKA: a translated subset, an outlier, and the diagnostics that flag them.

A small version of Davari et al. 2022 (https://arxiv.org/abs/2210.16156). The features are the pixels of scikit-learn's
digits. Some samples move by a distance c, in units of the features' RMS norm:

- (a) subset: all even digits move by the same vector. CKA compares the features before and after.
- (b) outlier: one sample moves. CKA compares the features before and after.
- (c) shared outlier: one sample moves in two independent sets of features (the rows of one are shuffled). CKA compares
  the two sets.

Unbiased HSIC is less sensitive to an outlier: the outlier's own HSIC grows like c^2, and like c^4 in biased HSIC.

The figure shows CKA, second opinions and the package's diagnostics over c. Another table, of `changed_layers.py`, has
what the measures and the flags say when a layer of a trained network changes little or much. Takes less than a minute
on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from changed_layers import compared, print_changes
from lightning_cka import CKAResult, Thresholds
from lightning_cka.functional import cka
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn

ESTIMATORS = {False: "biased", True: "unbiased"}  # By the value of unbiased=.
KERNELS = {"linear": ("#0072b2", 1.4), "rbf": ("#d55e00", 2.2), "distance": ("#009e73", 3)}  # color, width
CURVES = {
    (kernel, unbiased): {
        "label": f"CKA, {kernel}, {name}",
        "color": color,
        "lw": width,
        "ls": "-" if unbiased else "--",
    }
    for kernel, (color, width) in reversed(KERNELS.items())  # Wide curves first: narrow ones stay visible on top.
    for unbiased, name in ESTIMATORS.items()
}
OPINIONS = {
    "mutual_knn": {"label": "mutual kNN", "color": "#cc79a7", "lw": 3},
    "rsa": {"label": "RSA", "color": "#e69f00", "lw": 2.2},
    "ridge": {"label": "ridge CKA", "color": "black", "lw": 1.4},
}
MARKERS = {  # marker, size: of two flags at one point, both are seen
    "dominant_direction": ("v", 12),
    "disagreement": ("*", 14),
    "separated_group": ("s", 6),
    "trace_ratio": ("D", 6),
    "leave_one_out": ("o", 6),
    "influence": ("^", 6),
}
DIAGNOSTICS = {  # label, scale, range
    "disagreement": ("mutual kNN\n– linear CKA", "linear", (-0.5, 1)),
    "trace_ratio": ("largest trace ratio\n(mean: 1)", "log", (0.8, 800)),
    "leave_one_out": ("change of linear CKA\nwithout one sample", "log", (1e-5, 2)),
}
LOOKED_AT = 64
"""Number of samples of a batch that the flag "disagreement" looks at."""


class Point(NamedTuple):
    """CKA, second opinions and diagnostics at one distance.

    Attributes:
        distance: The distance c.
        values: CKA by kernel and by `unbiased`.
        opinions: The other measures by name.
        excess: By how much mutual kNN is higher than linear CKA, for the samples that the flag looks at.
        results: Results of the linear kernel by `unbiased`, with diagnostics and flags.
        message: The last warning about the results, or "".
    """

    distance: float
    values: dict[tuple[str, bool], float]
    opinions: dict[str, float]
    excess: float
    results: dict[bool, CKAResult]
    message: str

    @property
    def layer(self):
        """The diagnostics of the features."""
        return self.results[True].diagnostics.layers["features"]

    def change(self, unbiased):
        """Return the largest change of CKA when one sample is left out."""
        return self.results[unbiased].diagnostics.leave_one_out["features"].change


def measure(distance, x, y):
    """Return the point of two representations (n, d)."""
    values = {(kernel, u): float(cka(x, y, kernel=kernel, unbiased=u)) for kernel, u in CURVES}
    biased, _ = compared(x, y, unbiased=False)
    unbiased, message = compared(x, y)
    opinions = values_of(x, y, OPINIONS)
    first = values_of(x[:LOOKED_AT], y[:LOOKED_AT], ["cka", "mutual_knn"])
    excess = first["mutual_knn"] - first["cka"]
    return Point(distance, values, opinions, excess, {False: biased, True: unbiased}, message)


def values_of(x, y, measures):
    """Return measures of two representations by name."""
    results, _ = compared(x, y, measures=list(measures), thresholds=Thresholds.off())
    return {name: result.matrix.item() for name, result in results.items()}


def moved(x, rows, by):
    """Return x with the chosen rows moved by a vector."""
    return x + rows[:, None] * by


def closed_form(x, rows):
    """Return the linear biased CKA of centered x and of x with these rows moved infinitely far.

    The limit is rho / (1 - rho) |mean_S x|^2 / mean |x|^2 sqrt(PR). S is the set of rows, with the fraction rho of all
    rows. PR is the participation ratio of the sample covariance. The rows that move and the rows that stay give the
    same limit.
    """
    rho = rows.double().mean()
    eigenvalues = torch.linalg.eigvalsh(x.T @ x)
    ratio = x[rows].mean(0).square().sum() / x.square().sum(1).mean()
    return float(rho / (1 - rho) * ratio * eigenvalues.sum() / eigenvalues.norm())


def first_flagged(points, unbiased):
    """Return the first flagged point by the reason of the flag."""
    return {flag.reason: point for point in reversed(points) for flag in point.results[unbiased].flags}


def report(title, points, limit, far):
    """Print a table of the points, the first flags, and the limit beside the value at c = 1e6."""
    print(f"\n{title} (columns of CKA and of leave-one-out: biased, unbiased)")
    heads = "".join(f"{kernel:>15}" for kernel in KERNELS) + "".join(f"{name:>11}" for name in OPINIONS)
    print(f"{'c':>8}{heads}{'dimension':>11}{'trace':>7}{'leave-one-out':>17}  flags")
    for point in points[:: max(1, len(points) // 8)]:
        cells = "".join(f"{point.values[k, False]:8.3f}{point.values[k, True]:7.3f}" for k in KERNELS)
        cells += "".join(f"{point.opinions[name]:11.3f}" for name in OPINIONS)
        cells += f"{point.layer.effective_dimension:11.2f}{point.layer.trace_ratio:7.1f}"
        cells += f"{point.change(False):9.4f}{point.change(True):8.4f}"
        reasons = dict.fromkeys(flag.reason for result in point.results.values() for flag in result.flags)
        print(f"{point.distance:8.1f}{cells}  {', '.join(reasons) or 'none'}")
    for unbiased, name in ESTIMATORS.items():
        for reason, point in first_flagged(points, unbiased).items():
            value = point.values["linear", unbiased]
            print(f"Linear {name}: first flagged for {reason} at c = {point.distance:.2f}; CKA is {value:.3f} there")
    last = points[-1]
    measured = f"{last.values['linear', False]:.6f} at c = {last.distance:g}, {far:.6f} at c = 1e6"
    print(f"Linear biased: limit {limit:.6f}, measured {measured}")


def draw(columns):
    """Return a figure with a column for each scenario: CKA above, then all measures, the diagnostics below.

    Args:
        columns: By title, the points and the limit of linear biased CKA.
    """
    figure = Figure(figsize=(10, 10.4), layout="constrained")
    axes = figure.subplots(5, len(columns), sharex=True, sharey="row", height_ratios=[2.2, 2.2, 1, 1, 1])
    for (top, second, *below), (title, (points, limit)) in zip(axes.T, columns.items(), strict=True):
        top.set_title(title, fontsize=10)
        draw_values(top, points, limit)
        draw_opinions(second, points, limit)
        draw_diagnostics(below, points)
        below[-1].set_xlabel("distance c / RMS norm of the features")
        below[-1].xaxis.set_major_formatter("{x:g}")
    labels = ["CKA", "second opinions", *(label for label, *_ in DIAGNOSTICS.values())]
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label, fontsize=9)
    lines = {line.get_label(): line for axis in axes.flat for line in axis.get_legend_handles_labels()[0]}
    style = {"ncols": 4, "fontsize": 9, "frameon": False, "columnspacing": 1}
    figure.legend(handles=lines.values(), loc="outside lower center", **style)
    return figure


def draw_values(axis, points, limit):
    """Draw CKA over the distance, its limit, and the first point with each flag."""
    distances = [point.distance for point in points]
    axis.axhline(limit, color="black", lw=1, ls=":")
    place = {"xytext": (0, -4), "va": "top"} if limit > 0.1 else {"xytext": (0, 4), "va": "bottom"}
    text = f"closed-form limit,\nlinear biased: {limit:.3g}"
    axis.annotate(text, (distances[0], limit), textcoords="offset points", fontsize=9, **place)
    for key, style in CURVES.items():
        axis.plot(distances, [point.values[key] for point in points], **style)
    for unbiased in ESTIMATORS:
        for reason, point in first_flagged(points, unbiased).items():
            marker, size = MARKERS[reason]
            style = {"label": f"first flag: {reason}", "color": "black", "mfc": "#f0e442", "ls": "", "ms": size}
            place = (point.distance, point.values["linear", unbiased])
            axis.plot(*place, marker, **style, zorder=4 - size / 100)  # The larger one is below.


def draw_opinions(axis, points, limit):
    """Draw the other measures over the distance, beside linear CKA, its limit, and RBF CKA."""
    distances = [point.distance for point in points]
    axis.axhline(limit, color="black", lw=1, ls=":")
    for name, style in OPINIONS.items():
        axis.plot(distances, [point.opinions[name] for point in points], **style)
    for key in (("rbf", True), ("linear", False), ("linear", True)):
        axis.plot(distances, [point.values[key] for point in points], **CURVES[key])


def draw_diagnostics(axes, points):
    """Draw each diagnostic over the distance, and shade the values that are flagged."""
    distances = [point.distance for point in points]
    excess, ratio, change = axes
    excess.plot(distances, [point.excess for point in points], color="black")
    ratio.plot(distances, [point.layer.trace_ratio for point in points], color="black")
    for unbiased in ESTIMATORS:
        change.plot(distances, [point.change(unbiased) for point in points], **CURVES["linear", unbiased])
    for axis, (reason, (_, scale, (low, high))) in zip(axes, DIAGNOSTICS.items(), strict=True):
        threshold = getattr(Thresholds(), reason)
        axis.axhline(threshold, color="#a00000", lw=1, ls=(0, (6, 3)), label="threshold (shaded: flagged)")
        axis.axhspan(threshold, high, color="#a00000", alpha=0.1, lw=0)
        axis.set(xscale="log", yscale=scale, ylim=(low, high))
        axis.yaxis.set_major_formatter("{x:g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=25, help="number of distances")
    parser.add_argument("--samples", type=int, default=512, help="number of digits")
    parser.add_argument("--epochs", type=int, default=10, help="epochs to train the network whose layer is changed")
    parser.add_argument("--output", type=Path, default=Path("runs/reliability"), help="folder for the figure")
    args = parser.parse_args()

    torch.set_num_threads(1)  # The matrices are small: threads cost more than they save.
    torch.manual_seed(0)
    data = load_digits()
    chosen = torch.randperm(len(data.data))[: args.samples]
    x = torch.tensor(data.data)[chosen]
    x = x - x.mean(0)
    x = x / x.square().sum(1).mean().sqrt()
    even, single = torch.tensor(data.target)[chosen] % 2 == 0, torch.arange(len(x)) == 0
    y = x[torch.randperm(len(x))]
    u, v = nn.functional.normalize(torch.randn(2, x.shape[1], dtype=x.dtype))
    # By title: a function of c that returns two representations, and the limit of their linear biased CKA.
    scenarios = {
        "(a) subset translated": (lambda c: (x, moved(x, even, c * u)), closed_form(x, even)),
        "(b) outlier": (lambda c: (x, moved(x, single, c * u)), closed_form(x, single)),
        "(c) shared outlier": (lambda c: (moved(y, single, c * v), moved(x, single, c * u)), 1.0),
    }
    columns = {}
    for title, (pair, limit) in scenarios.items():
        points = [measure(c, *pair(c)) for c in torch.logspace(-1, 3, args.points).tolist()]
        columns[title] = points, limit
        report(title, points, limit, cka(*pair(1e6), unbiased=False))
        print(f"The warning at c = {points[-1].distance:g}: {points[-1].message}")
    path = args.output / "reliability.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(columns).savefig(path, dpi=200)
    print_changes(epochs=args.epochs)
    print(f"\nFigure: {path}")


if __name__ == "__main__":
    main()
