"""Made-up results of runs for the view: smooth in time, with records of probe batches, flags and undefined layers."""

from __future__ import annotations

from dataclasses import replace

import torch
from lightning_cka import CKAResult
from lightning_cka.compare.diagnostics import Diagnostics
from lightning_cka.compare.flags import Flag
from lightning_cka.compare.left_out_batches import LeftOutBatches


def results(layers=5, epochs=4, reference="initial", batches=8, seed=0, pattern="net.{}", names=None, **changes):
    """Return results of one reference in order of time."""
    random = torch.Generator().manual_seed(seed)
    names = names or tuple(pattern.format(place) for place in range(layers))
    distance = (torch.arange(layers)[:, None] - torch.arange(layers)).abs() / layers
    noise = torch.zeros(batches, layers, layers, dtype=torch.float64)
    found = []
    for epoch in range(epochs):
        noise = 0.9 * noise + 0.009 * torch.randn(noise.shape, generator=random, dtype=torch.float64)
        moved = 1 - 2.7 ** (-epoch / 15)
        matrix = (torch.exp(-distance * (1 + 2 * moved)) - 0.3 * moved + noise.mean(0)).double().clamp(-1, 1)
        without = matrix - (noise - noise.mean(0)) / (batches - 1)
        error = ((1 - 1 / batches) * (without - matrix).square().sum(0)).sqrt()
        paired = without.diagonal(dim1=1, dim2=2).T.clamp(-1, 1)
        hashes, weights = tuple(map(str, range(batches))), torch.ones(batches, dtype=torch.float64)
        values = {
            "standard_error": error,
            "num_samples": 256 * batches,
            "num_batches": batches,
            "epoch": epoch,
            "step": 50 * epoch + 49,
            "reference_name": reference,
            "effective_batches": float(batches),
            "left_out_batches": LeftOutBatches(hashes, weights, names, paired),
        }
        found.append(CKAResult(matrix, names, names, **(values | changes)))
    return found


def flagged(result, *flags):
    """Copy a result, and add flags."""
    return replace(result, diagnostics=Diagnostics(flags=flags, sample_kind="dataset index"))


def trace_flag(layer, samples=(17, 93), **kwargs):
    return Flag(layer, "trace_ratio", 83.0, 20.0, samples, **kwargs)


def without_layer(result, row):
    """Copy a result, in which one layer is undefined."""
    matrix = result.matrix.clone()
    matrix[row] = torch.nan
    return replace(result, matrix=matrix)


def one_run():
    """Return a run with two references and, for one of them, two measures. One layer is undefined in epoch 2."""
    initial = results(epochs=5)
    initial[2] = flagged(without_layer(initial[2], 3), trace_flag("net.1"))
    initial[3] = flagged(initial[3], trace_flag("net.1"), trace_flag("net.4", (5,), of_reference=True))
    other = results(epochs=5, reference="initial", seed=3, measure="mutual_knn")
    return {
        "initial/cka": initial,
        "initial/mutual_knn": other,
        "previous": results(epochs=5, reference="previous", seed=1),
    }


def large_run():
    """Return 28 layers, 100 epochs and 3 references."""
    names = ("initial", "previous", "pretrained")
    return {name: results(28, 100, name, 16, seed, "backbone.blocks.{}") for seed, name in enumerate(names)}
