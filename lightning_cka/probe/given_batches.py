"""Take a probe set whose batches are given: by the user's own loader, or by another probe set."""

from __future__ import annotations

from collections.abc import Sized
from itertools import chain, islice
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_cka.probe.batching import check_gram_batch_size, join_sizes, loader_batch_size, split_size
from lightning_cka.probe.dataset_probe import DatasetProbe
from lightning_cka.probe.probe_set import ProbeSet
from lightning_cka.probe.sampler_copy import generators_of
from lightning_cka.probe.samplers import batches_in_order, plain_index
from lightning_cka.probe.stream_probe import StreamProbe
from lightning_cka.runtime.devices import cpu_by_default
from lightning_cka.runtime.rng import isolated_rng, seeded_generators


def probe_set_of_loader(
    loader: Any, *, seed: int = 0, max_blocks: int | None = None, gram_batch_size: int | None = None
) -> ProbeSet:
    """Take the batches of a user's loader as they are.

    For a plain `DataLoader` over a map-style dataset, the sampler is read once, so that samples are identified by
    dataset index.

    Args:
        loader: An iterable of batches that can be iterated more than once.
        seed: Seed of the loader's shuffling, and of all random numbers while samples are loaded and shown.
        max_blocks: Maximum number of Gram blocks. None takes all of them.
        gram_batch_size: Consecutive batches are joined to Gram blocks of at most this many samples. Larger batches of
            a plain `DataLoader` are cut. None: each batch is a block.

    Raises:
        TypeError: The loader is an iterator, or is not made of batches, or ``gram_batch_size`` is not an integer.
        ValueError: ``gram_batch_size`` is below 4.
    """
    if isinstance(loader, Tensor | np.ndarray | Dataset) or _is_one_batch(loader):
        raise TypeError(
            f"the probe dataloader is a {type(loader).__name__}, not batches of samples; pass a DataLoader or a list "
            "of batches, such as [data] for one graph"
        )
    gram_batch_size = check_gram_batch_size(gram_batch_size)
    stream = StreamProbe(loader, seed, max_blocks, gram_batch_size=gram_batch_size)
    max_batches = None if max_blocks is None else max_blocks * (gram_batch_size or 1)
    batches = None if stream.is_distributed else _dataset_indices(loader, seed, max_batches)
    if batches is None:
        return stream
    parts = join_sizes(map(len, batches), gram_batch_size)[:max_blocks]
    samples = chain.from_iterable(batches)
    blocks = [list(islice(samples, sum(sizes))) for sizes in parts]
    return DatasetProbe(loader, blocks, seed, is_shuffled=False, parts=parts)


def _is_one_batch(loader: Any) -> bool:
    """Whether a value is a batch, and not batches: it has named entries, as dictionaries and graphs, or no entries."""
    return hasattr(loader, "keys") or not (hasattr(loader, "__iter__") or hasattr(loader, "__getitem__"))


def _dataset_indices(loader: Any, seed: int, max_batches: int | None) -> list[list[int]] | None:
    """Read the dataset indices, batch by batch, from the loader's sampler. None if it does not yield indices."""
    # A subclass of DataLoader may yield batches that its sampler does not describe.
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return None
    with isolated_rng(seed), seeded_generators(loader, seed), cpu_by_default(generators_of(loader)):
        indices = [list(map(plain_index, batch)) for batch in islice(batches_in_order(loader), max_batches)]
    are_indices = all(isinstance(index, int) for batch in indices for index in batch)
    return indices if indices and are_indices else None


def probe_set_like(batches: list[list[int]], sample_kind: str, loader: Any, *, seed: int) -> ProbeSet:
    """Make a probe set of the same samples, in the same Gram blocks, as another one.

    Forward passes have the loader's batch size, as far as a block is not smaller.

    Args:
        batches: Sample numbers of the other probe set, block by block.
        sample_kind: What these numbers are. Only dataset indices can be used.
        loader: A `DataLoader` over the same map-style dataset.
        seed: Seed of the other probe set.

    Raises:
        ValueError: The numbers are not dataset indices, or exceed the dataset's length.
    """
    if sample_kind != DatasetProbe.sample_kind:
        raise ValueError(f"like= needs a bank whose samples have dataset indices, but this bank has {sample_kind}s")
    if not isinstance(getattr(loader, "dataset", None), Sized):
        raise ValueError(f"like= needs a DataLoader over a map-style dataset, but got a {type(loader).__name__}")
    if (largest := max(map(max, batches))) >= len(loader.dataset):
        raise ValueError(f"like= has sample {largest}, but the dataset has {len(loader.dataset)} samples")
    parts = [split_size(len(block), loader_batch_size(loader) or len(block)) for block in batches]
    probe = DatasetProbe(loader, batches, seed, parts=parts)
    probe.smaller = lambda _: DatasetProbe(loader, batches, seed)
    return probe
