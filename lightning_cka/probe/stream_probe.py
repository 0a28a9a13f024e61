"""`StreamProbe`: a probe set of batches in the order in which a loader yields them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet
from lightning_cka.probe.samplers import has_distributed_sampler
from lightning_cka.runtime.nested import map_tensors, tensors_in
from lightning_cka.runtime.rng import seed_rng, seeded_generators

_END = object()


class StreamProbe(ProbeSet):
    """Batches in the order of a user's loader, or of a list of batches that were read before.

    Args:
        source: A loader, or a list of batches or of `ProbeBatch`.
        seed: See `ProbeSet`.
        max_batches: Maximum number of batches. None takes all of them.

    Attributes:
        is_distributed: Whether the loader's sampler already splits the samples over processes.

    Raises:
        TypeError: The source is an iterator, which yields its batches only once.
    """

    sample_kind = "loader position"
    is_shuffled = False

    def __init__(self, source: Iterable[Any], seed: int, max_batches: int | None = None) -> None:
        super().__init__(seed)
        if isinstance(source, Iterator):
            raise TypeError(
                f"the probe dataloader must be iterable more than once, but a {type(source).__name__} is not; pass a "
                "DataLoader or a list of batches"
            )
        self._source = source
        self._max_batches = max_batches
        self.is_distributed = has_distributed_sampler(source)

    def batches(self, rank: int = 0, world_size: int = 1) -> Generator[ProbeBatch]:
        """See `ProbeSet.batches`. A loader with a distributed sampler is taken whole on each rank."""
        with seeded_generators(self._source, self.seed):
            start = 0
            for i, data in enumerate(self._seeded(iter(self._source))):
                if isinstance(self._source, list):
                    data = copy.deepcopy(data)  # A model may write to its inputs.
                if self.is_distributed:
                    # A distributed sampler gives this rank the samples rank, rank + world_size, ...
                    batch = as_probe_batch(rank + i * world_size, data, rank + start * world_size, world_size)
                else:
                    batch = as_probe_batch(i, data, start)
                if self.is_distributed or i % world_size == rank:
                    yield batch
                start += batch.num_samples

    def _seeded(self, source: Iterator[Any]) -> Iterator[Any]:
        """Seed each fetch, so that a model that draws random numbers does not change the next batch's transforms."""
        for i in count():
            seed_rng(self.batch_seed(i))
            batch = next(source, _END)
            if batch is _END or i == self._max_batches:
                return
            yield batch

    def first_batch(self, *, drop_last_sample: bool = False) -> ProbeBatch:
        """See `ProbeSet.first_batch`.

        Raises:
            ValueError: There is no batch, or the last sample cannot be dropped.
        """
        with contextlib.closing(self.batches()) as batches:
            batch = next(batches, None)
        if batch is None:
            raise ValueError("the probe dataloader yields no batch")
        return _without_last_sample(batch) if drop_last_sample else batch


def as_probe_batch(index: int, data: Any, first_sample: int, sample_step: int = 1) -> ProbeBatch:
    """Number the samples of a loader's batch. A `ProbeBatch` is returned as it is.

    Args:
        index: Index of the batch in the probe set.
        data: The batch.
        first_sample: Number of its first sample.
        sample_step: Difference between the numbers of two consecutive samples.

    Raises:
        ValueError: The batch has neither a ``batch_size`` nor a tensor.
    """
    if isinstance(data, ProbeBatch):
        return data
    # Batches of graphs have a batch_size, and tensors with one entry per node.
    size = getattr(data, "batch_size", None)
    if not isinstance(size, int):
        size = next((tensor.size(0) for tensor in tensors_in(data) if tensor.ndim), None)
    if size is None:
        raise ValueError(f"cannot determine the batch size of a {type(data).__name__} without tensors")
    stop = first_sample + size * sample_step
    return ProbeBatch(index, data, size, tuple(range(first_sample, stop, sample_step)))


def _without_last_sample(batch: ProbeBatch) -> ProbeBatch:
    """Drop the last entry of each tensor that has one entry per sample."""
    n = batch.num_samples
    has_dropped = False

    def drop_last(tensor: Tensor) -> Tensor:
        nonlocal has_dropped
        if not tensor.ndim or tensor.size(0) != n:
            return tensor
        has_dropped = True
        if tensor.is_nested:
            return torch.nested.as_nested_tensor(list(tensor.unbind()[:-1]), layout=tensor.layout)
        return tensor[:-1]

    data = map_tensors(batch.data, drop_last)
    if not has_dropped:
        raise ValueError(f"no tensor of the {type(batch.data).__name__} has one entry for each of the {n} samples")
    return replace(batch, data=data, num_samples=n - 1, samples=batch.samples[:-1])
