"""What the monitor does in an epoch, and before the first step, against the floor."""

from __future__ import annotations

import copy
import statistics
import warnings

import torch
from lightning_cka.monitor.reference import Reference
from lightning_cka.runtime.module_names import named_layers

from benchmarks.moment import (
    at_validation,
    differences,
    interleaved,
    mib,
    peak_memory,
    ratios,
    seconds,
    timed,
    with_range,
)
from benchmarks.networks import NETWORKS, Lit

TRAINING_SAMPLES = 50_000
"""Of the training epoch that the monitor's work is compared with."""


def bare_forward(moment, batches=None):
    with moment.evaluating() as model:
        for x in moment.batches if batches is None else batches:
            model(x.to(moment.device))


def floor(moment):
    """Bare forward, X X^T in float32, and the product over all pairs."""
    modules, grams = named_layers(moment.module), {}

    def hook(name):
        def reduce(module, args, output):
            flat = output.flatten(1).float()
            with torch.autocast(flat.device.type, enabled=False):
                grams[name] = flat @ flat.T

        return reduce

    handles = [modules[name].register_forward_hook(hook(name)) for name in moment.names]
    with moment.evaluating() as model:
        for x in moment.batches:
            model(x.to(moment.device))
            stack = torch.stack([grams[name].flatten() for name in moment.names])
            with torch.autocast(stack.device.type, enabled=False):
                stack @ stack.T
    for handle in handles:
        handle.remove()


def largest_activation(moment):
    """Bytes of the largest output of any module, of one batch."""
    found = [0]

    def note(_module, _args, output):
        if isinstance(output, torch.Tensor):
            found.append(output.numel() * output.element_size())

    handles = [module.register_forward_hook(note) for module in moment.module.modules()]
    bare_forward(moment, moment.batches[:1])
    for handle in handles:
        handle.remove()
    return max(found)


def training_seconds(moment, steps=3):
    """Of a training epoch over 50,000 samples that are on the device already, from a few steps."""
    model = copy.deepcopy(moment.module.net)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)
    x = moment.batches[0].to(moment.device)

    def step():
        with torch.enable_grad():
            with moment.trainer.precision_plugin.train_step_context():
                loss = model(x).float().square().mean()
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    return statistics.median(timed(step, moment.device) for _ in range(steps)) * TRAINING_SAMPLES / len(x)


def host_waits(fn):
    """How often the host waited for the GPU, as far as torch tells."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fn()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def measure(name, samples, repeats, device, folder):
    """All that is told of one network: a dictionary for the JSON file."""
    network = NETWORKS[name]

    def work(moment):
        trainer, module, session, probe = moment.trainer, moment.module, moment.session, moment.probe

        def load():
            for _ in moment.samples():
                pass

        runs = interleaved(
            {
                "bare": lambda: bare_forward(moment),
                "floor": lambda: floor(moment),
                "load": load,
                "pass": session.compare,
                "log": session.log,  # Of what was compared just before.
                "draw": lambda: session.deliver(wait=True),  # What a thread does while training goes on.
            },
            repeats,
            device,
        )
        runs["wait"] = [a + b for a, b in zip(runs["pass"], runs["log"], strict=True)]
        runs["epoch"] = [a + b for a, b in zip(runs["wait"], runs["draw"], strict=True)]
        other = Lit(network.make())
        start = interleaved(
            {
                "initial": lambda: probe.bank(trainer, module, 0, 0),
                "frozen": lambda: probe.frozen_bank(Reference("frozen", other), trainer, module),
            },
            max(1, repeats // 2),
            device,
        )
        peaks = {
            "bare": peak_memory(lambda: bare_forward(moment), device),
            "floor": peak_memory(lambda: floor(moment), device),
            "pass": peak_memory(session.compare, device),
        }
        session.log()
        session.deliver(wait=True)
        layers, sizes = len(moment.names), [len(x) for x in moment.batches]
        grams = sum(layers * n * (n + 1) // 2 * 4 for n in sizes)
        row = {
            "network": name,
            "layers": layers,
            "samples": samples,
            "batch": sizes[0],
            "seconds": runs | start,
            "first_start_s": moment.start_s,
            "pass_ratio": ratios(runs["pass"], runs["floor"]),
            "wait_ratio": ratios(runs["wait"], runs["floor"]),
            "epoch_ratio": ratios(runs["epoch"], runs["floor"]),
            "peak_bytes": peaks,
            "bound_bytes": grams + 2 * largest_activation(moment),
            "gram_bytes": grams,
            "training_epoch_s": training_seconds(moment),
        }
        if device.type == "cuda":
            row["host_waits"] = {
                "bare": host_waits(lambda: bare_forward(moment)), "pass": host_waits(session.compare),
                "batches": len(moment.batches),
            }  # fmt: skip
            session.log()
        return row

    return at_validation(work, network, samples=samples, device=device, folder=folder, precision=network.precision)


def row_of(found):
    """Of the table."""
    runs, peaks = found["seconds"], found["peak_bytes"]
    return {
        "network (batch)": f"{NETWORKS[found['network']].title} ({found['batch']})",
        "layers": found["layers"],
        "bare forward": seconds(runs["bare"]),
        "floor": seconds(runs["floor"]),
        "pass": seconds(runs["pass"]),
        "pass / floor": with_range(found["pass_ratio"]),
        "training waits": seconds(runs["wait"]),
        "waits / floor": with_range(found["wait_ratio"]),
        "with drawing / floor": with_range(found["epoch_ratio"]),
        "extra memory, MiB": mib(peaks["pass"] - peaks["bare"]),
        "bound, MiB": mib(found["bound_bytes"]),
    }


def detail_of(found):
    """Of the second table."""
    runs, peaks = found["seconds"], found["peak_bytes"]
    epoch = statistics.median(runs["wait"])
    row = {
        "network": found["network"],
        "above the floor": with_range([1000 * d for d in differences(runs["pass"], runs["floor"])], "{:.0f}") + " ms",
        "of it, loading samples": seconds(runs["load"]),
        "logging": seconds(runs["log"]),
        "drawing, in a thread": seconds(runs["draw"]),
        "initial bank": seconds(runs["initial"]),
        "a frozen reference": seconds(runs["frozen"]),
        "before the first step, cold": seconds(found["first_start_s"]),
        "epoch's work / training epoch": f"{100 * epoch / found['training_epoch_s']:.2f} %",
        "floor's extra memory, MiB": mib(peaks["floor"] - peaks["bare"]),
    }
    if waits := found.get("host_waits"):
        row["host waits, pass (bare)"] = f"{waits['pass']} ({waits['bare']}) in {waits['batches']} batches"
    return row
