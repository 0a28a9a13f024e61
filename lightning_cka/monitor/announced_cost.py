"""Say before training what comparing many layers will cost."""

from __future__ import annotations

import time

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_cka.monitor.bank_limit import number_of_comparisons
from lightning_cka.monitor.live_probe import LiveProbe
from lightning_cka.monitor.run_state import RunState
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.trainer_state import is_trial
from lightning_cka.probe.thinning import MAX_DEFAULT_LAYERS
from lightning_cka.runtime.devices import sums_device

_BYTES_OF_PAIR = 60
"""Size of one pair of layers in the file of a result; 54 to 70 were measured for 64 to 256 layers."""

_OVERHEAD = 5
"""How much longer a comparison takes than its matrix product: 5.6 was measured for 256 layers on one CPU core."""

_SECONDS_OF_PAIR = 5e-6
"""Time to write one pair of layers to the file of a result; 4.3e-6 were measured on one CPU core."""

_MAX_ENTRIES = 2**24


def announce_cost(probe: LiveProbe, settings: Settings, run: RunState, trainer: Trainer, device: torch.device) -> None:
    """Log what the comparisons of a run will take on disk and in time, if there are more than 64 layers.

    `lightning_cka.monitor.bank_limit.announce_banks` logs the space of banks.

    Args:
        probe: The probe set and the layers.
        settings: The monitor's settings.
        run: The run.
        trainer: The Trainer, before the first step.
        device: The live model's device.
    """
    number = len(probe.plan.names)
    if number <= MAX_DEFAULT_LAYERS or is_trial(trainer) or not trainer.is_global_zero:
        return
    pairs = number**2 * len(run.keys)
    mebibytes = _BYTES_OF_PAIR * pairs / 2**20
    seconds = _seconds_of_block(number, probe.plan.num_samples, device) * len(run.keys)
    blocks, comparisons = probe.probe.num_blocks, number_of_comparisons(settings, trainer)
    if comparisons is not None and trainer.global_step == 0:
        comparisons += settings.schedule.at_start
    if blocks is None:
        cost = f"{_digit(seconds)} s per Gram matrix, and {mebibytes:.3g} MiB of results per comparison"
    else:
        seconds = seconds * max(1, blocks / trainer.world_size) + _SECONDS_OF_PAIR * pairs
        cost = f"{mebibytes:.3g} MiB of results and {_digit(seconds)} s per comparison, besides the forward passes"
        if comparisons is not None:
            cost += f"; {comparisons * mebibytes:.3g} MiB and {_digit(comparisons * seconds)} s in all"
    rank_zero_info(
        f"CKA: the pairs of {number} layers take about {cost}. Cost grows with the square of the number of layers; "
        "layers= chooses fewer"
    )


def _digit(value: float) -> str:
    """Return a positive number with one significant digit, without an exponent: 0.03, 6, 40."""
    return f"{float(f'{value:.1g}'):.15f}".rstrip("0").rstrip(".")


def _seconds_of_block(num_layers: int, num_samples: int, device: torch.device) -> float:
    """Return about how long it takes to compare all pairs of layers on one Gram matrix."""
    entries = num_samples * (num_samples + 1) // 2
    tried = min(entries, max(1, _MAX_ENTRIES // num_layers))
    values = torch.ones(num_layers, tried, dtype=torch.float64, device=sums_device(device))
    times = []
    for _ in range(2):  # The first one may load a library.
        start = time.perf_counter()
        (values @ values.T)[0, 0].item()
        times.append(time.perf_counter() - start)
    return _OVERHEAD * min(times) * entries / tried
