"""A probe set of batches in the order in which a loader gives them."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.distributed import DistributedSampler

from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet, check_enough, own_sampler
from lightning_cka.runtime.nested import map_tensors, tensors_in
from lightning_cka.runtime.rng import seed_rng, seeded_generators

_END = object()


class StreamProbe(ProbeSet):
    """Batches as they come: of a loader that the user made, or read once from a stream and kept."""

    sample_kind = "loader position"
    is_shuffled = False

    def __init__(self, source: Iterable[Any], seed: int, max_batches: int | None = None) -> None:
        super().__init__(seed)
        if isinstance(source, Iterator):
            raise TypeError(
                "the probe dataloader must give its batches again and again, "
                f"which a {type(source).__name__} does not; pass a DataLoader or a list of batches"
            )
        self._source = source
        self._max_batches = max_batches
        samplers = (getattr(source, "sampler", None), getattr(getattr(source, "batch_sampler", None), "sampler", None))
        self.deals_out = not any(isinstance(sampler, DistributedSampler) for sampler in samplers)

    def batches(self, rank: int = 0, world_size: int = 1) -> Generator[ProbeBatch]:
        """See `ProbeSet.batches`. A loader that a distributed sampler deals out is taken whole."""
        with seeded_generators(self._source, self.seed):
            start = 0
            for i, batch in enumerate(self._seeded(iter(self._source))):
                if isinstance(self._source, list):
                    # Kept from pass to pass, also if a model writes to its inputs.
                    batch = copy.deepcopy(batch)
                if not self.deals_out:
                    # A distributed sampler deals its samples out one by one.
                    found = _as_probe_batch(rank + i * world_size, batch, rank + start * world_size, world_size)
                    yield found
                else:
                    found = _as_probe_batch(i, batch, start)
                    if i % world_size == rank:
                        yield found
                start += found.num_samples

    def _seeded(self, source: Iterator[Any]) -> Iterator[Any]:
        """Seed each fetch: a model that draws random numbers must not change the next one's transforms."""
        for i in count():
            seed_rng(self.batch_seed(i))
            batch = next(source, _END)
            if batch is _END or i == self._max_batches:
                return
            yield batch

    def first_batch(self, *, drop_last_sample: bool = False) -> ProbeBatch:
        """See `ProbeSet.first_batch`."""
        with contextlib.closing(self.batches()) as batches:
            batch = next(batches, None)
        if batch is None:
            raise ValueError("the probe dataloader gave no batch")
        if not drop_last_sample:
            return batch
        n, cut = batch.num_samples, []

        def drop(tensor: Tensor) -> Tensor:
            if not tensor.ndim or tensor.size(0) != n:
                return tensor
            cut.append(tensor)
            if tensor.is_nested:
                return torch.nested.as_nested_tensor(list(tensor.unbind()[:-1]), layout=tensor.layout)
            return tensor[:-1]

        data = map_tensors(batch.data, drop)
        if not cut:
            raise ValueError(f"a batch of {n} samples in a {type(batch.data).__name__} cannot be cut")
        return replace(batch, data=data, num_samples=n - 1, samples=batch.samples[:-1])


def _as_probe_batch(index: int, batch: Any, start: int, step: int = 1) -> ProbeBatch:
    if isinstance(batch, ProbeBatch):
        return batch
    # Of graphs, the first tensor has an entry per node, and batches of them say their size.
    said = getattr(batch, "batch_size", None)
    size = said if isinstance(said, int) else next((t.size(0) for t in tensors_in(batch) if t.ndim), None)
    if size is None:
        raise ValueError(f"cannot tell the batch size of a {type(batch).__name__} without tensors")
    return ProbeBatch(index, batch, size, tuple(range(start, start + size * step, step)))


def copied(dataset: IterableDataset[Any]) -> IterableDataset[Any]:
    """A copy to read from: a stream that keeps a state would go on from another one."""
    try:
        return copy.deepcopy(dataset)
    except Exception as error:  # noqa: BLE001  # Whatever a member of it raises.
        warnings.warn(
            f"{type(dataset).__name__} cannot be copied ({error}): if it keeps a state, reading the probe set from it "
            "changes what it gives next",
            stacklevel=4,
        )
        return dataset


def whole_batches(loader: Iterable[Any]) -> Iterable[Any]:
    """Of a loader that does not put samples together: its sampler's or dataset's items are batches already."""
    if not isinstance(loader, DataLoader):
        return loader
    if isinstance(loader.dataset, IterableDataset):
        return map(loader.collate_fn, copied(loader.dataset))
    return (loader.collate_fn(loader.dataset[index]) for index in own_sampler(loader))


def take_batches(source: Iterable[Any], num_samples: int | None) -> list[ProbeBatch]:
    batches: list[ProbeBatch] = []
    count = 0
    for i, batch in enumerate(source):
        batches.append(_as_probe_batch(i, batch, count))
        count += batches[-1].num_samples
        if num_samples is not None and count >= num_samples:
            break
    check_enough(count)
    return batches
