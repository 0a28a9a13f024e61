"""Measure the seconds and the peak memory of a function, on a CPU or a GPU."""

from __future__ import annotations

import time

import torch
from torch.profiler import ProfilerActivity, profile


def timed(fn, device):
    """Return the seconds that a call takes, including the work that it leaves to the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    fn()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(functions, repeats, device):
    """Return the seconds of each run, by the function's name.

    The functions take turns, so that a machine whose speed changes treats them alike. A first round warms up.
    """
    runs = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, fn in functions.items():
            seconds = timed(fn, device)
            if repeat:
                runs[name].append(seconds)
    return runs


def peak_memory(fn, device):
    """Return the peak bytes of tensors during a call, above what was allocated before."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        fn()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        fn()
    current = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            current += event.nbytes()
            peak = max(peak, current)
    return peak


def ratios(over, under):
    """Return the ratio of each pair of runs that were made in the same round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def differences(over, under):
    """Return the difference of each pair of runs that were made in the same round."""
    return [a - b for a, b in zip(over, under, strict=True)]
