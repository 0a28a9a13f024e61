"""Devices of sums and transfers to them."""

import torch
from lightning_cka.runtime.devices import cpu_by_default, sums_device, to_device


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


def test_tensors_are_made_on_the_cpu_unless_a_generator_is_elsewhere():
    class Elsewhere:
        device = torch.device("meta")  # As a generator of CUDA, which fills no tensor on the CPU.

    torch.set_default_device("meta")
    try:
        with cpu_by_default([torch.Generator("cpu")]):
            assert torch.empty(2).device.type == "cpu"
        with cpu_by_default([torch.Generator("cpu"), Elsewhere()]):
            assert torch.empty(2).is_meta
        assert torch.empty(2).is_meta
    finally:
        torch.set_default_device(None)
