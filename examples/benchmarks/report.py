"""How long the file of the interactive view takes to write as a run goes on, and how large it gets."""

from __future__ import annotations

from dataclasses import replace

import torch
from lightning_cka import compare_models
from lightning_cka.view.growing import GrowingPayload
from lightning_cka.view.page import write_page
from lightning_cka.view.payload import view_payload
from torch import nn

from benchmarks.markdown import mib, seconds
from benchmarks.timing import interleaved

REFERENCES = ("initial", "previous", "self")
BATCHES = 16


def histories(layers, epochs):
    """Return made-up histories of three references: a real comparison of two networks, to which noise is added."""
    generator = torch.Generator().manual_seed(0)
    networks = [nn.Sequential(*(nn.Linear(8, 8) for _ in range(layers))) for _ in range(2)]
    batches = list(torch.randn(BATCHES, 16, 8, generator=generator))
    first = compare_models(*networks, batches)

    def noise(values):
        return values + 0.005 * torch.randn(values.shape, generator=generator, dtype=values.dtype)

    def at(epoch, name):
        left_out = replace(first.left_out_batches, values=noise(first.left_out_batches.values))
        errors = noise(first.standard_error).abs()
        changes = {"matrix": noise(first.matrix), "standard_error": errors, "left_out_batches": left_out}
        return replace(first, **changes, epoch=epoch, step=50 * epoch, reference_name=name)

    return {name: [at(epoch, name) for epoch in range(epochs)] for name in REFERENCES}


def measure(layers, epochs, repeats, folder):
    """Return the seconds of writing a whole run, and of writing it again after one more epoch; and the bytes."""
    found, path = histories(layers, epochs), folder / "report.html"
    grown = GrowingPayload("run")
    grown.payload({name: results[:-1] for name, results in found.items()})
    functions = {
        "whole": lambda: write_page(path, view_payload({"run": found})),
        "again": lambda: write_page(path, grown.payload(found)),
    }
    runs = interleaved(functions, repeats, torch.device("cpu"))
    return {"layers": layers, "epochs": epochs, "seconds": runs, "bytes": path.stat().st_size}


def row(found):
    """Return the row of the table."""
    return {
        "layers": found["layers"],
        "epochs": found["epochs"],
        "written at once": seconds(found["seconds"]["whole"]),
        "written again after an epoch": seconds(found["seconds"]["again"]),
        "size, MiB": mib(found["bytes"]),
    }
