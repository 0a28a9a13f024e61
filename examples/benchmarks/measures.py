"""What each measure takes for one batch: from two models' Gram matrices to the products of all pairs of layers."""

from __future__ import annotations

import statistics

import torch
from lightning_cka.hsic.check_measures import check_measures
from lightning_cka.hsic.stack import pack_features

from benchmarks.markdown import seconds
from benchmarks.timing import interleaved

NAMES = ["cka", "mutual_knn", "rsa", "ridge"]


def measure(layers, samples, width, repeats, device):
    """Return the seconds of each run by measure, for both sides together."""
    made = torch.Generator().manual_seed(0)
    sides = [
        pack_features([torch.randn(samples, width, generator=made).to(device) for _ in range(layers)]) for _ in range(2)
    ]

    def products(each):
        own, other = (each.vectors(each.grams(side)) for side in sides)
        return own.products(other)

    functions = {name: lambda each=each: products(each) for name, each in check_measures(NAMES).items()}
    return {"layers": layers, "samples": samples, "seconds": interleaved(functions, repeats, device)}


def row(found):
    """Return the row of the table: the median of each measure, and their sum."""
    medians = {name: statistics.median(runs) for name, runs in found["seconds"].items()}
    sizes = {"layers": found["layers"], "samples in a batch": found["samples"]}
    return sizes | {name: seconds(value) for name, value in medians.items()} | {"all": seconds(sum(medians.values()))}
