"""Draw the probe set from a validation loader, with a seed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_cka.probe.batching import choose_batch_size, split_into_batches
from lightning_cka.probe.dataset_probe import DatasetProbe
from lightning_cka.probe.first_samples import first_batches, first_samples
from lightning_cka.probe.probe_set import ProbeSet
from lightning_cka.probe.samplers import available_samples


def draw_probe_set(
    loader: Any, *, num_samples: int | None = 2048, batch_size: int | None = None, seed: int = 0
) -> ProbeSet:
    """Draw a probe set from the samples of a validation loader.

    A map-style dataset gives a random subset of the samples that the loader's sampler yields. An iterable dataset, and
    a loader that yields whole batches, give their first samples in order, with a warning.

    Args:
        loader: Usually a `DataLoader`. Its dataset, ``collate_fn``, workers and batch size are used.
        num_samples: Maximum number of samples. None takes all of them.
        batch_size: Samples per batch. None takes the loader's batch size, or 32 if that is below 4 or unknown, reduced
            if there would be fewer than 8 batches.
        seed: Seed of the choice of samples, and of all random numbers while they are loaded and shown.

    Raises:
        ValueError: There are fewer than 4 samples, ``batch_size`` is given for a loader of whole batches, or
            ``num_samples`` is None for a stream without a length.
    """
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        return first_batches(loader, num_samples, batch_size, seed)
    if isinstance(loader.dataset, IterableDataset):
        return first_samples(loader, num_samples, batch_size, seed)
    return _random_subset(loader, num_samples, batch_size, seed)


def _random_subset(loader: DataLoader[Any], num_samples: int | None, batch_size: int | None, seed: int) -> DatasetProbe:
    """Draw a random subset of the samples that the loader's sampler yields."""
    return _drawn_from(available_samples(loader, seed, num_samples), loader, num_samples, batch_size, seed)


def _drawn_from(
    available: Sequence[Any], loader: DataLoader[Any], num_samples: int | None, batch_size: int | None, seed: int
) -> DatasetProbe:
    generator = torch.Generator("cpu").manual_seed(seed)
    places = torch.randperm(len(available), generator=generator, device="cpu")[:num_samples].tolist()
    keys = [available[place] for place in places]
    size = choose_batch_size(len(keys), loader, batch_size)
    batches = split_into_batches(keys, size)
    if all(isinstance(key, int) for key in keys):
        probe = DatasetProbe(loader, batches, seed)
    else:
        probe = DatasetProbe(loader, split_into_batches(places, size), seed, keys=batches)
    probe.available = available
    probe.redraw = partial(_drawn_from, loader=loader, num_samples=num_samples, batch_size=batch_size, seed=seed)
    return probe
