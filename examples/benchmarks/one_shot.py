"""One comparison of two models: `compare_models` beside pytorch-cka, the fastest other package."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning_cka import compare_models
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.exact import ExactCKA
from benchmarks.markdown import seconds, with_range
from benchmarks.networks import NETWORKS, Block, Lit
from benchmarks.packages import PACKAGES
from benchmarks.timing import ratios

OURS, PEER = "lightning-cka", PACKAGES[0]


@dataclass(frozen=True)
class Case:
    """Two networks that differ in their weights.

    Attributes:
        network: Name of the networks.
        layers: Whether a module with this name is compared.
        batches: The numbers of batches to measure with.
    """

    network: str
    layers: Callable[[str, nn.Module], bool]
    batches: tuple[int, ...]


CASES = [
    Case("MLP", lambda name, module: isinstance(module, nn.ReLU), (8,)),
    # The layers that give the network its name, without shortcuts.
    Case("ResNet-18", lambda name, module: isinstance(module, nn.Linear) or _is_main_convolution(name, module), (2, 8)),
    Case("transformer", lambda name, module: isinstance(module, Block), (2, 8)),
]


def _is_main_convolution(name, module):
    return isinstance(module, nn.Conv2d) and "shortcut" not in name


def measure(case, num_batches, repeats, device):
    """Compare two networks with both packages in turns, and return a dictionary for the JSON file."""
    network = NETWORKS[case.network]
    torch.manual_seed(0)
    live, reference = (Lit(network.make()).to(device) for _ in range(2))
    names = [name for name, module in live.named_modules() if case.layers(name, module)]
    inputs = network.inputs(num_batches * network.batch)
    loader = DataLoader(TensorDataset(inputs), batch_size=network.batch)
    exact = ExactCKA(live, reference, inputs.split(network.batch), names, device).matrix()
    packages = {
        OURS: lambda: _ours(live, reference, loader, names),
        PEER.name: lambda: PEER.compare(live, reference, loader, names),
    }
    found = {"network": case.network, "layers": len(names), "batches": num_batches, "batch": network.batch}
    for name, compare in packages.items():
        error = (compare().double().to(exact) - exact).abs().max().item()  # This warms up.
        found[name] = {"cpu": [], "wall": [], "error": error}
    for _ in range(repeats):
        for name, compare in packages.items():
            start = time.process_time(), time.perf_counter()
            compare()
            found[name]["cpu"].append(time.process_time() - start[0])
            found[name]["wall"].append(time.perf_counter() - start[1])
    return found


def _ours(live, reference, loader, names):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Flags of untrained networks.
        return compare_models(live, reference, loader, names, progress_bar=False).matrix


def table_row(found):
    """Return the row of the table for one case."""
    ours, peer = found[OURS], found[PEER.name]
    row = {
        "network": f"{found['network']} ({found['layers']} layers)",
        "batches": f"{found['batches']} of {found['batch']}",
    }
    for kind, title in (("cpu", "CPU time"), ("wall", "wall time")):
        row |= {
            f"{title}, ours": seconds(ours[kind]),
            f"{title}, {PEER.name}": seconds(peer[kind]),
            f"ours / {PEER.name}, {title}": with_range(ratios(ours[kind], peer[kind])),
        }
    return row | {"error, ours": f"{ours['error']:.0e}", f"error, {PEER.name}": f"{peer['error']:.0e}"}
