"""Seed random generators for a while, and restore their states."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from lightning_cka.runtime.generator_states import GENERATORS, find_generators, kept_generators, seed_generator
from lightning_cka.runtime.integers import to_integer

MAX_SEED = 2**64 - 1
"""Largest seed of torch's generators."""


def check_seed(seed: Any) -> int:
    """Return a seed as a Python integer.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is negative, or above 2^64 - 1.
    """
    number = to_integer("seed", seed)
    if not 0 <= number <= MAX_SEED:
        raise ValueError(f"seed must be from 0 to 2**64 - 1, but is {'negative' if number < 0 else 'larger'}")
    return number


@contextlib.contextmanager
def isolated_rng(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators; restore their states at the end, also after an error.

    Args:
        seed: The seed.
        device: Device whose generator is included; the CPU's always is.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = [device] if device is not None and device.type != "cpu" else []
    with torch.random.fork_rng(devices, device_type=devices[0].type if devices else "cuda"):
        try:
            seed_rng(seed, device)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def seed_rng(seed: int, device: torch.device | None = None) -> None:
    """Seed the global generators of Python, NumPy, and torch on the CPU and on one other device.

    Args:
        seed: The seed; NumPy takes it modulo 2^32.
        device: The other device; None or the CPU: no other.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # `torch.manual_seed` would also seed devices whose states are not restored.
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type != "cpu":
        with torch.device(device):
            getattr(torch, device.type).manual_seed(seed)


@contextlib.contextmanager
def seeded_generators(loader: Any, seed: int) -> Iterator[None]:
    """Seed the generators that a loader, its sampler and its dataset own, and restore their states at the end.

    A loader that shuffles with a generator of its own then shuffles in the same way each time.
    """
    sampler = getattr(loader, "sampler", None)
    found = [getattr(owner, "generator", None) for owner in (loader, sampler)]
    own = {id(g): g for g in [*found, *find_generators(getattr(loader, "dataset", None))] if isinstance(g, GENERATORS)}
    with kept_generators(list(own.values())):
        for generator in own.values():
            seed_generator(generator, seed)
        yield
