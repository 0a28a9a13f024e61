"""CKA results with made-up values, for figures."""

from __future__ import annotations

from dataclasses import replace

import torch
from lightning_cka import CKAResult
from lightning_cka.compare.diagnostics import Diagnostics
from lightning_cka.compare.flags import Flag
from lightning_cka.compare.left_out_batches import LeftOutBatches

LONG = "backbone.encoder.stages.{}.blocks.attention.self_attention.out_projection"
"""A pattern for layer names that do not fit into a label."""


def result(rows=3, columns=4, pattern="layer{}", **kwargs):
    """Compare two models, with CKA from -0.1 to 1."""
    matrix = torch.linspace(-0.1, 1, rows * columns).reshape(rows, columns)
    names = [[pattern.format(i) for i in range(n)] for n in (rows, columns)]
    return CKAResult(
        matrix, *names, model_name="Live", **({"epoch": 2, "step": 30, "reference_name": "initial"} | kwargs)
    )


def self_result(size=3, **kwargs):
    """Compare a model with itself, or a layer with itself over epochs: layers are called 0, 1, 2, ..."""
    names = tuple(map(str, range(size)))
    matrix = torch.linspace(0, 1, size * size, dtype=torch.float64).reshape(size, size)
    return CKAResult((matrix + matrix.T) / 2, names, names, self_comparison=True, **kwargs)


def history(count=4, layers=3, pattern="layer{}"):
    """Results of consecutive epochs, with standard errors."""
    errors = torch.full((layers, layers), 0.02)
    return [
        result(layers, layers, pattern, epoch=epoch, step=10 * epoch, standard_error=errors, effective_batches=5.0)
        for epoch in range(count)
    ]


def diagnostics(*flags):
    return Diagnostics(flags=flags, sample_kind="dataset index")


def with_flags(one, *flags):
    """Copy a result, and add flags."""
    return CKAResult(**(vars(one) | {"diagnostics": Diagnostics(flags=flags)}))


def trace_flag(layer="layer1", samples=(17,), **kwargs):
    return Flag(layer, "trace_ratio", 83.0, 20.0, samples, **kwargs)


def settling_history(count=5, layers=3, spread=1e-4, pattern="layer{}"):
    """Results with records of eight batches. Layer i moves until result i, and has the same CKA from there on."""
    random = torch.Generator().manual_seed(0)
    found = []
    for epoch, each in enumerate(history(count, layers, pattern)):
        matrix = each.matrix.clone()
        for row in range(layers):
            matrix[row, row] = 0.5 - 0.1 * max(0, row - epoch)
        values = matrix.diagonal()[:, None] + spread * torch.randn(layers, 8, generator=random)
        identities = tuple(map(str, range(8)))
        records = LeftOutBatches(identities, torch.ones(8, dtype=torch.float64), each.layers, values.double())
        found.append(replace(each, matrix=matrix, left_out_batches=records, effective_batches=8.0))
    return found
