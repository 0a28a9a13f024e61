"""What the monitor's pass costs as the work grows, in one process and in two."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.epoch import bare_forward, floor
from benchmarks.moment import at_validation, differences, interleaved, seconds
from benchmarks.networks import Lit, Network, mlp

BASE = {"samples": 1024, "layers": 20, "width": 256, "references": 1}

SIZES = {
    "samples": [256, 512, 1024, 2048, 4096],
    "layers": [4, 10, 20, 50, 100, 200, 400],
    "width": [64, 128, 256, 512, 1024, 2048],
    "references": [1, 2, 3, 5, 8],
}

EXPECTED = {
    "samples": "straight: each batch costs the same",
    "layers": "straight, and the product over all pairs, n^2 L^2, on top",
    "width": "straight, n^2 d per layer; the forward pass itself grows with d^2",
    "references": "straight: a product over all pairs, and diagnostics, for each",
}

BATCH = 128


def network_of(layers, width):
    """An MLP of that many linear layers, all of which are watched."""
    return Network(lambda: mlp(width, layers), (width,), BATCH, "net.*[02468]", f"MLP, {layers} layers of {width}")


def measure(sizes, repeats, device, folder):
    """Seconds of bare forward, floor and pass."""
    network = network_of(sizes["layers"], sizes["width"])
    references = [Lit(network.make()) for _ in range(sizes["references"])]

    def work(moment):
        works = {
            "bare": lambda: bare_forward(moment),
            "floor": lambda: floor(moment),
            "pass": moment.session.compare,
        }
        return sizes | {"seconds": interleaved(works, repeats, device)}

    return at_validation(
        work, network, samples=sizes["samples"], device=device, folder=folder, reference=references
    )  # fmt: skip


def line_through(x, y):
    """Slope and intercept of the line with the least relative squares, and its largest relative deviation."""
    x, y = np.asarray(x, dtype=float), np.asarray(y)
    slope, intercept = np.polyfit(x, y, 1, w=1 / np.abs(y))
    return slope, intercept, float(np.abs((slope * x + intercept) / y - 1).max())


def table_of(vary, found):
    """Rows, and what the lines through them are."""
    rows, extra, times = [], [], []
    for each in found:
        runs = each["seconds"]
        own = statistics.median(differences(runs["pass"], runs["bare"]))
        needed = statistics.median(differences(runs["floor"], runs["bare"]))
        extra.append(own)
        times.append(statistics.median(runs["pass"]))
        rows.append(
            {
                vary: each[vary],
                "bare forward": seconds(runs["bare"]),
                "pass": seconds(runs["pass"]),
                "above the bare forward": seconds(own),
                f"of it per {vary.removesuffix('s')}": seconds(own / each[vary]),
                "floor above the bare forward": seconds(needed),
            }
        )
    x = [each[vary] for each in found]
    lines = []
    for what, values in (("above the bare forward", extra), ("pass", times)):
        if len(x) < 3 or min(values) <= 0:
            continue
        slope, intercept, deviation = line_through(x, values)
        lines.append(
            f"{what}: {1000 * intercept:.2f} ms + {1000 * slope:.5f} ms per {vary.removesuffix('s')}, "
            f"at most {100 * deviation:.0f} % off"
        )
    return rows, lines


def in_processes(samples, width, layers, repeats, folder, counts=(1, 2)):
    """The pass in several processes of one thread each, against one: by number of processes, what each measured."""
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


def row_of_processes(found):
    """Of the table: the slower process counts; the sync is that of the one that waits less."""
    one, two = (found["processes"][count] for count in (1, 2))
    alone = statistics.median(one[0]["seconds"])
    together = statistics.median(max(times) for times in zip(*(each["seconds"] for each in two), strict=True))
    return {
        "samples": found["samples"],
        "width": found["width"],
        "layers": found["layers"],
        "1 process": seconds(alone),
        "2 processes": seconds(together),
        "of 1 process": f"{100 * together / alone:.0f} %",
        "of it, waiting for the other": seconds(min(statistics.median(each["wait_s"]) for each in two)),
        "sync": seconds(min(statistics.median(each["sync_s"]) for each in two)),
        "collectives": two[0]["calls"],
        "bytes": two[0]["bytes"],
        "the largest": ", ".join(f"{what}: {size}" for what, size in two[0]["largest"]),
    }
