"""Devices of sums and transfers to them."""

import torch
from lightning_cka.runtime.devices import sums_device, to_device


def test_sums_are_kept_where_float64_exists():
    assert sums_device(torch.device("mps")) == torch.device("cpu")
    assert sums_device(torch.device("cuda", 1)) == torch.device("cuda", 1)


def test_transfers_do_not_wait_on_cuda_only():
    calls = []

    class Recorder:
        def to(self, device, non_blocking):
            calls.append((device.type, non_blocking))

    for name in ("cpu", "cuda", "mps"):
        to_device(Recorder(), torch.device(name))
    assert calls == [("cpu", False), ("cuda", True), ("mps", False)]
