"""How the cost grows with samples, layers, width, references, kernels and epochs; files of banks; two processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning_cka import RBF, GramBank
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch

from benchmarks.epoch import bare_forward, floor
from benchmarks.live_monitor import at_first_validation
from benchmarks.markdown import mib, seconds
from benchmarks.networks import Lit, Network, mlp
from benchmarks.timing import differences, interleaved

BASE = {"samples": 1024, "layers": 20, "width": 256, "references": 1, "kernels": 1, "epochs": 1}

SIZES = {
    "samples": [256, 512, 1024, 2048, 4096, 100_000],
    "layers": [4, 10, 20, 50, 100, 200, 300, 400],
    "width": [64, 128, 256, 512, 1024, 2048],
    "references": [1, 2, 3, 5, 8, 20],
    "kernels": [1, 2, 4, 8, 16],
    "epochs": [1, 100, 500],
}

EXPECTED = {
    "samples": "linear: each batch costs the same",
    "layers": "linear, plus the product over all pairs of layers, n^2 L^2",
    "width": "linear, n^2 d for each layer; the forward pass itself grows with d^2",
    "references": "linear: each reference adds a product over all pairs of layers, and diagnostics",
    "kernels": "linear: each kernel adds its Gram matrices and a product over all pairs of layers",
    "epochs": "constant, except for drift maps, which show all epochs",
}

BATCH = 128


def network_of(layers, width):
    """Return an MLP of this depth and width; all its linear layers are compared."""
    return Network(lambda: mlp(width, layers), (width,), BATCH, "net.*[02468]", f"MLP, {layers} layers of {width}")


def measure(sizes, repeats, device, folder):
    """Return the seconds of bare forward, floor and pass for an MLP of these sizes."""
    network = network_of(sizes["layers"], sizes["width"])
    references = [Lit(network.make()) for _ in range(sizes["references"])]
    kernels = ["linear", *(RBF(0.1 * number) for number in range(1, sizes["kernels"]))]

    def work(live):
        for history in live.session.results.values():
            history[:0] = made_up_history(history[0], sizes["epochs"] - 1)
        functions = {
            "bare": lambda: bare_forward(live),
            "floor": lambda: floor(live),
            "pass": live.compare,
            "log": live.log,  # Logs the comparison of the line above.
            "draw": lambda: live.session.deliver(wait=True),  # In training, a thread does this meanwhile.
        }
        return sizes | {"seconds": interleaved(functions, repeats, device)}

    return at_first_validation(
        work, network, samples=sizes["samples"], device=device, folder=folder, reference=references, kernel=kernels
    )  # fmt: skip


def made_up_history(result, epochs):
    """Return results of earlier epochs: copies of one, with noise."""
    noise = 0.005 * torch.randn(epochs, *result.matrix.shape, dtype=torch.float64)
    return [
        replace(result, matrix=result.matrix + each, epoch=number - epochs, step=number - epochs)
        for number, each in enumerate(noise)
    ]


def bank_files(layers, samples, float16, folder):
    """Return the bytes of a bank, and how much more memory this process takes meanwhile when it saves and loads it.

    The file that is loaded is mapped into memory, which counts.
    """
    bank, path = GramBank(tuple(map(str, range(layers))), "Net"), folder / "bank.safetensors"
    for index in range(samples // BATCH):
        numbers = tuple(range(index * BATCH, (index + 1) * BATCH))
        features = [torch.randn(BATCH, 64) for _ in range(layers)]
        bank.add(BankBatch(index, pack_features(features), "", numbers))
    bank.save(path, float16=float16)  # Loads what is loaded late.
    held = sum(part.nbytes for batch in bank for part in batch.grams)
    saved = peak_rss(lambda: bank.save(path, float16=float16))
    loaded = peak_rss(lambda: GramBank.load(path))
    return {"layers": layers, "samples": samples, "float16": float16, "bank": held, "save": saved, "load": loaded}


def peak_rss(fn):
    """Return the peak of this process's memory during a call, above what it had before, in bytes. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    fn()
    return _memory("VmHWM") - before


def _memory(name):
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[name].split()[0])


def bank_row(found):
    """Return a row of the table of files."""
    return {
        "layers": found["layers"],
        "samples": found["samples"],
        "file": "float16" if found["float16"] else "float32",
        "bank, MiB": mib(found["bank"]),
        "more while saving, MiB": mib(found["save"]),
        "of a bank": f"{found['save'] / found['bank']:.2f}",
        "more while loading, MiB": mib(found["load"]),
        "of a bank, with the file": f"{found['load'] / found['bank']:.2f}",
    }


def line_through(x, y):
    """Fit a line to the relative errors; return its slope, intercept and largest relative error."""
    x, y = np.asarray(x, dtype=float), np.asarray(y)
    slope, intercept = np.polyfit(x, y, 1, w=1 / np.abs(y))
    return slope, intercept, float(np.abs((slope * x + intercept) / y - 1).max())


def table_of(vary, found):
    """Return the rows of the table, and a sentence about each line that is fitted to them."""
    rows, extra, times = [], [], []
    for each in found:
        runs = each["seconds"]
        ours = statistics.median(differences(runs["pass"], runs["bare"]))
        needed = statistics.median(differences(runs["floor"], runs["bare"]))
        extra.append(ours)
        times.append(statistics.median(runs["pass"]))
        rows.append(
            {
                vary: each[vary],
                "bare forward": seconds(runs["bare"]),
                "pass": seconds(runs["pass"]),
                "above the bare forward": seconds(ours),
                f"that, per {vary.removesuffix('s')}": seconds(ours / each[vary]),
                "floor above the bare forward": seconds(needed),
                "logging": seconds(runs["log"]),
                "drawing, in a thread": seconds(runs["draw"]),
            }
        )
    x = [each[vary] for each in found]
    lines = []
    for label, values in (("above the bare forward", extra), ("pass", times)):
        if len(x) < 3 or min(values) <= 0:
            continue
        slope, intercept, deviation = line_through(x, values)
        lines.append(
            f"{label}: {1000 * intercept:.2f} ms + {1000 * slope:.5f} ms per {vary.removesuffix('s')}, "
            f"error at most {100 * deviation:.0f} %"
        )
    return rows, lines


def in_processes(samples, width, layers, repeats, folder, counts=(1, 2)):
    """Measure a pass in one process and in several, of one thread each; return the measurements of each process."""
    found = {}
    for count in counts:
        output = folder / f"processes-{count}-{samples}-{width}-{layers}.json"
        output.parent.mkdir(parents=True, exist_ok=True)
        sizes = {"devices": count, "samples": samples, "width": width, "layers": layers, "repeats": repeats}
        options = [f"--{key}={value}" for key, value in sizes.items()]
        command = [sys.executable, "-m", "benchmarks.processes", *options, f"--output={output.resolve()}"]
        path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{count} processes failed:\n{done.stderr[-3000:]}")
        found[count] = json.loads(output.read_text())
    return {"samples": samples, "width": width, "layers": layers, "processes": found}


def process_row(found):
    """Return a row of the table: the time of the slower process, and the sync of the process that waits less."""
    one, two = (found["processes"][count] for count in (1, 2))
    alone = statistics.median(one[0]["seconds"])
    together = statistics.median(max(times) for times in zip(*(each["seconds"] for each in two), strict=True))
    return {
        "samples": found["samples"],
        "width": found["width"],
        "layers": found["layers"],
        "1 process": seconds(alone),
        "2 processes": seconds(together),
        "time / 1 process": f"{100 * together / alone:.0f} %",
        "waiting for the other process": seconds(min(statistics.median(each["wait_s"]) for each in two)),
        "sync": seconds(min(statistics.median(each["sync_s"]) for each in two)),
        "collectives": two[0]["calls"],
        "bytes": two[0]["bytes"],
        "largest messages": ", ".join(f"{call}: {size}" for call, size in two[0]["largest"]),
    }
