"""Draw the probe set from a validation loader, with a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_cka.probe.batching import (
    Sizes,
    choose_sizes,
    earlier_sizes,
    sizes_for_memory,
    split_into_batches,
    split_size,
)
from lightning_cka.probe.dataset_probe import DatasetProbe
from lightning_cka.probe.first_samples import first_batches, first_samples
from lightning_cka.probe.probe_set import ProbeSet
from lightning_cka.probe.samplers import available_samples


def draw_probe_set(
    loader: Any,
    *,
    num_samples: int | None = 2048,
    batch_size: int | None = None,
    gram_batch_size: int | None = None,
    seed: int = 0,
) -> ProbeSet:
    """Draw a probe set from the samples of a validation loader.

    A map-style dataset gives a random subset of the samples that the loader's sampler yields. An iterable dataset, and
    a loader that yields whole batches, give their first samples in order, with a warning.

    Args:
        loader: Usually a `DataLoader`. Its dataset, ``collate_fn``, workers and batch size are used.
        num_samples: Maximum number of samples. None takes all of them.
        batch_size: Samples per forward pass. None takes the loader's batch size, or 32 if that is unknown.
        gram_batch_size: Samples per Gram block. None takes as many whole forward passes as fit into 128 samples, or
            fewer so that there are 8 blocks; from a loader of whole batches, one batch each.
        seed: Seed of the choice of samples, and of all random numbers while they are loaded and shown.

    Raises:
        ValueError: There are fewer than 4 samples, ``batch_size`` is given for a loader of whole batches, or
            ``num_samples`` is None for a stream without a length.
    """
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        return first_batches(loader, num_samples, batch_size, seed, gram_batch_size)
    if isinstance(loader.dataset, IterableDataset):
        return first_samples(loader, num_samples, batch_size, seed, gram_batch_size)
    choose = partial(choose_sizes, loader=loader, batch_size=batch_size, gram_batch_size=gram_batch_size)
    available = available_samples(loader, seed, num_samples)
    earlier = partial(earlier_sizes, loader=loader, batch_size=batch_size) if gram_batch_size is None else None
    return _drawn_from(available, loader, num_samples, seed, choose, earlier)


def _drawn_from(
    available: Sequence[Any],
    loader: DataLoader[Any],
    num_samples: int | None,
    seed: int,
    choose: Callable[[int], Sizes],
    earlier: Callable[[int], Sizes] | None = None,
) -> DatasetProbe:
    """Draw a random subset of the samples that the loader's sampler yields.

    Args:
        available: The samples.
        loader: See `draw_probe_set`, as for the next two arguments.
        num_samples: Maximum number of samples.
        seed: Seed of the choice.
        choose: Returns sizes of forward passes and blocks for a number of samples.
        earlier: Returns the sizes of runs before ``gram_batch_size=``. None: ``choose`` gives the user's sizes.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    places = torch.randperm(len(available), generator=generator, device="cpu")[:num_samples].tolist()
    keys = [available[place] for place in places]
    sizes = choose(len(keys))
    blocks = split_into_batches(keys, sizes.block)
    parts = [split_size(len(block), sizes.forward) for block in blocks]
    if all(isinstance(key, int) for key in keys):
        probe = DatasetProbe(loader, blocks, seed, parts=parts)
    else:
        probe = DatasetProbe(loader, split_into_batches(places, sizes.block), seed, keys=blocks, parts=parts)
    draw = partial(_drawn_from, loader=loader, num_samples=num_samples, seed=seed)
    probe.available = available
    probe.redraw = partial(draw, choose=choose, earlier=earlier)
    probe.earlier = None if earlier is None else partial(draw, available, choose=earlier)
    if earlier is not None and sizes.forward < sizes.block:

        def smaller(sample_bytes: int | None) -> DatasetProbe:
            fixed = sizes_for_memory(sizes, len(keys), sample_bytes)
            return draw(available, choose=lambda _: fixed)

        probe.smaller = smaller
    return probe
