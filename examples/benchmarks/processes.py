"""Measure a pass that several processes (gloo) share. ``benchmarks.growth`` runs this module as a script."""

from __future__ import annotations

import argparse
import json
import pickle
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed as dist

from benchmarks.growth import network_of
from benchmarks.live_monitor import at_first_validation

COLLECTIVES = ("all_gather", "all_reduce", "broadcast", "all_gather_object", "gather_object")


class Traffic:
    """The messages that a process sends, the seconds it waits for the others, and the seconds of sending."""

    def __init__(self):
        self.sent = []
        self.wait_s = self.sync_s = 0.0

    def _wrapped(self, name, collective):
        def wrapper(*args, **kwargs):
            value = args[1] if name == "all_gather" else args[0]
            if name == "all_gather_object":
                value = args[1]
            if isinstance(value, torch.Tensor):
                self.sent.append((f"{name} {tuple(value.shape)}", value.numel() * value.element_size()))
            else:
                self.sent.append((name, len(pickle.dumps(value))))
            start = time.perf_counter()
            dist.barrier()
            ready = time.perf_counter()
            result = collective(*args, **kwargs)
            self.wait_s += ready - start
            self.sync_s += time.perf_counter() - ready
            return result

        return wrapper

    @contextmanager
    def counted(self):
        """Count the calls of collectives of ``torch.distributed`` in this context."""
        found = {name: getattr(dist, name) for name in COLLECTIVES}
        for name, collective in found.items():
            setattr(dist, name, self._wrapped(name, collective))
        try:
            yield
        finally:
            for name, collective in found.items():
                setattr(dist, name, collective)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)

    def work(live):
        several = args.devices > 1
        times, waits, syncs = [], [], []
        for repeat in range(args.repeats + 1):
            if several:
                dist.barrier()
            start = time.perf_counter()
            live.compare()
            if repeat:  # The first warms up.
                times.append(time.perf_counter() - start)
        traffic = Traffic()
        for _ in range(args.repeats if several else 0):
            traffic = Traffic()
            with traffic.counted():
                live.compare()
            waits.append(traffic.wait_s)
            syncs.append(traffic.sync_s)
        live.log()
        largest = sorted(traffic.sent, key=lambda each: -each[1])[:3]
        found = {"seconds": times, "wait_s": waits, "sync_s": syncs, "calls": len(traffic.sent),
                 "bytes": sum(size for _, size in traffic.sent), "largest": largest}  # fmt: skip
        if not several:
            return [found]
        everyone = [None] * args.devices
        dist.all_gather_object(everyone, found)
        return everyone

    found = at_first_validation(
        work, network_of(args.layers, args.width), samples=args.samples, device=torch.device("cpu"),
        folder=args.output.parent / f"cka-{args.devices}",
        trainer={"devices": args.devices, "strategy": "ddp" if args.devices > 1 else "auto"},
    )  # fmt: skip
    if int(dist.get_rank() if dist.is_initialized() else 0) == 0:
        args.output.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
