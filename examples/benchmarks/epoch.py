"""The monitor's work in one epoch and before the first step, compared with the least possible work (the floor)."""

from __future__ import annotations

import copy
import statistics
import warnings

import torch
from lightning_cka.monitor.reference import Reference
from lightning_cka.runtime.module_names import named_layers

from benchmarks.live_monitor import at_first_validation
from benchmarks.markdown import mib, seconds, with_range
from benchmarks.networks import NETWORKS, Lit
from benchmarks.timing import differences, interleaved, peak_memory, ratios, timed

TRAINING_SAMPLES = 50_000
"""Size of the training epoch that the monitor's work is compared with."""


def bare_forward(live, batches=None):
    """Run the model on all probe batches, or on the given ones, and do nothing else."""
    with live.evaluating() as model:
        for x in live.batches if batches is None else batches:
            model(x.to(live.device))


def floor(live):
    """Run a bare forward pass, the float32 products X X^T of each layer, and one product over all pairs of layers."""
    modules, grams = named_layers(live.module), {}

    def hook(name):
        def reduce(module, args, output):
            flat = output.flatten(1).float()
            with torch.autocast(flat.device.type, enabled=False):
                grams[name] = flat @ flat.T

        return reduce

    handles = [modules[name].register_forward_hook(hook(name)) for name in live.names]
    with live.evaluating() as model:
        for x in live.batches:
            model(x.to(live.device))
            stack = torch.stack([grams[name].flatten() for name in live.names])
            with torch.autocast(stack.device.type, enabled=False):
                stack @ stack.T
    for handle in handles:
        handle.remove()


def largest_activation(live):
    """Return the bytes of the largest output of any module on one batch."""
    sizes = [0]

    def record_size(_module, _args, output):
        if isinstance(output, torch.Tensor):
            sizes.append(output.numel() * output.element_size())

    handles = [module.register_forward_hook(record_size) for module in live.module.modules()]
    bare_forward(live, live.batches[:1])
    for handle in handles:
        handle.remove()
    return max(sizes)


def training_seconds(live, steps=3):
    """Estimate the seconds of a training epoch over 50,000 samples from a few steps, without loading data."""
    model = copy.deepcopy(live.module.net)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)
    x = live.batches[0].to(live.device)

    def step():
        with torch.enable_grad():
            with live.trainer.precision_plugin.train_step_context():
                loss = model(x).float().square().mean()
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    return statistics.median(timed(step, live.device) for _ in range(steps)) * TRAINING_SAMPLES / len(x)


def host_waits(fn):
    """Return how often the host waits for the GPU during a call, according to torch's synchronization warnings."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fn()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def time_work(live, network, repeats):
    """Return the seconds of each run of the monitor's work, by name.

    "wait" is the time that training waits for: the pass and logging. "epoch" adds the drawing.
    """
    trainer, module, session, probe = live.trainer, live.module, live.session, live.probe
    other = Lit(network.make())

    def load():
        for _ in live.samples():
            pass

    runs = interleaved(
        {
            "bare": lambda: bare_forward(live),
            "floor": lambda: floor(live),
            "load": load,
            "pass": live.compare,
            "log": live.log,  # Logs the comparison of the line above.
            "draw": lambda: session.deliver(wait=True),  # In training, a thread does this meanwhile.
        },
        repeats,
        live.device,
    )
    runs["wait"] = [a + b for a, b in zip(runs["pass"], runs["log"], strict=True)]
    runs["epoch"] = [a + b for a, b in zip(runs["wait"], runs["draw"], strict=True)]
    return runs | interleaved(
        {
            "initial": lambda: probe.bank(trainer, module, 0, 0),
            "frozen": lambda: probe.frozen_bank(Reference("frozen", other), trainer, module),
        },
        max(1, repeats // 2),
        live.device,
    )


def measure_peaks(live):
    """Return the peak bytes of the bare forward pass, the floor and the monitor's pass."""
    peaks = {
        "bare": peak_memory(lambda: bare_forward(live), live.device),
        "floor": peak_memory(lambda: floor(live), live.device),
        "pass": peak_memory(live.compare, live.device),
    }
    live.log()
    live.session.deliver(wait=True)
    return peaks


def count_host_waits(live):
    """Return how often the host waits for the GPU in a bare forward pass and in the monitor's pass."""
    waits = {"bare": host_waits(lambda: bare_forward(live)), "pass": host_waits(live.compare)}
    live.log()
    return waits | {"batches": len(live.batches)}


def measure(name, samples, repeats, device, folder):
    """Measure one network, and return a dictionary for the JSON file."""
    network = NETWORKS[name]

    def work(live):
        runs, peaks = time_work(live, network, repeats), measure_peaks(live)
        layers, sizes = len(live.names), [len(x) for x in live.batches]
        grams = sum(layers * n * (n + 1) // 2 * 4 for n in sizes)
        row = {
            "network": name,
            "layers": layers,
            "samples": samples,
            "batch": sizes[0],
            "seconds": runs,
            "first_start_s": live.start_s,
            "pass_ratio": ratios(runs["pass"], runs["floor"]),
            "wait_ratio": ratios(runs["wait"], runs["floor"]),
            "epoch_ratio": ratios(runs["epoch"], runs["floor"]),
            "peak_bytes": peaks,
            "bound_bytes": grams + 2 * largest_activation(live),
            "gram_bytes": grams,
            "training_epoch_s": training_seconds(live),
        }
        return row | ({"host_waits": count_host_waits(live)} if device.type == "cuda" else {})

    options = {"samples": samples, "device": device, "folder": folder, "precision": network.precision}
    return at_first_validation(work, network, **options)


def cost_row(found):
    """Return a row of the first table."""
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


def detail_row(found):
    """Return a row of the second table."""
    runs, peaks = found["seconds"], found["peak_bytes"]
    wait_s = statistics.median(runs["wait"])
    above_ms = [1000 * difference for difference in differences(runs["pass"], runs["floor"])]
    row = {
        "network": found["network"],
        "pass above the floor": f"{with_range(above_ms, '{:.0f}')} ms",
        "loading samples (part of that)": seconds(runs["load"]),
        "logging": seconds(runs["log"]),
        "drawing, in a thread": seconds(runs["draw"]),
        "initial bank": seconds(runs["initial"]),
        "a frozen reference": seconds(runs["frozen"]),
        "before the first step, cold": seconds(found["first_start_s"]),
        "epoch's work / training epoch": f"{100 * wait_s / found['training_epoch_s']:.2f} %",
        "floor's extra memory, MiB": mib(peaks["floor"] - peaks["bare"]),
    }
    if waits := found.get("host_waits"):
        row["host waits, pass (bare)"] = f"{waits['pass']} ({waits['bare']}) in {waits['batches']} batches"
    return row
