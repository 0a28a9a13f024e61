"""`ProbeSet`: the fixed samples, in fixed batches, that every model is shown."""

from __future__ import annotations

import contextlib
import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler
from torch.utils.data.distributed import DistributedSampler

from lightning_cka.batches import map_tensors, tensors_in
from lightning_cka.files import digest
from lightning_cka.functional import MIN_SAMPLES
from lightning_cka.rng import isolated_rng, seed_rng, seeded_generators

T = TypeVar("T")

_END = object()

MIN_BATCHES = 8
"""The standard error is estimated between batches."""


@dataclass(frozen=True)
class ProbeBatch:
    """One batch of the probe set."""

    index: int
    """Its place in the probe set, the same on any number of processes."""
    data: Any
    num_samples: int
    samples: tuple[int, ...]
    """The numbers of its samples: indices in the dataset, or places in the order that a loader gave them in."""


class ProbeSet(ABC):
    """The samples that every model is shown: the same, in the same batches, each time.

    Attributes:
        seed: of the choice of samples and of all randomness while they are loaded and shown.
        sample_kind: what the samples' numbers are, in words.
        is_shuffled: the batches are alike but for chance by construction.
    """

    sample_kind = "dataset index"
    is_shuffled = True

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @property
    def description(self) -> str:
        """The same for the same choice of samples."""
        return f"{self.sample_kind}, seed {self.seed}"

    @abstractmethod
    def batches(self, rank: int = 0, world_size: int = 1) -> Generator[ProbeBatch]:
        """The batches ``rank``, ``rank + world_size``, ... of the probe set.

        Iterate under `isolated_rng`: loading a sample may draw random numbers.
        """

    @abstractmethod
    def first_batch(self, *, drop_last_sample: bool = False) -> ProbeBatch:
        """The first batch, whole or with one sample fewer."""

    def batch_seed(self, index: int) -> int:
        """Seed of one batch, in [0, 2^32)."""
        return int(np.random.SeedSequence([self.seed, index]).generate_state(1)[0])

    @staticmethod
    def from_own_loader(loader: Any, *, seed: int = 0, max_batches: int | None = None) -> ProbeSet:
        """The batches of a loader that a user made, as it is.

        Of a plain `DataLoader` over a map-style dataset, its sampler is asked once, so that the samples can be named by
        their dataset indices.

        Args:
            loader: gives the same batches again and again.
            seed: of its shuffling, whatever generator that draws from.
            max_batches: how many at most.

        Raises:
            TypeError: an iterator, which gives its batches once, or data that are not in batches.
        """
        if isinstance(loader, Tensor | np.ndarray | Dataset):
            raise TypeError(
                f"the probe dataloader is a {type(loader).__name__}, not batches of samples; pass a DataLoader, or a "
                "list of batches"
            )
        stream = StreamProbe(loader, seed, max_batches)
        plain = type(loader) is DataLoader and not isinstance(loader.dataset, IterableDataset)
        if not plain or loader.batch_sampler is None or not stream.deals_out:
            return stream
        with isolated_rng(seed), seeded_generators(loader, seed):
            indices = [list(map(_plain, batch)) for batch in islice(loader.batch_sampler, max_batches)]
        if not indices or not all(isinstance(index, int) for batch in indices for index in batch):
            return stream
        return DatasetProbe(loader, indices, seed, is_shuffled=False)

    @staticmethod
    def from_loader(
        loader: Any, *, num_samples: int | None = 2048, batch_size: int | None = None, seed: int = 0
    ) -> ProbeSet:
        """A seeded choice of the samples behind a validation loader.

        Args:
            loader: usually a `DataLoader`, of which dataset, ``collate_fn``, workers and batch size are
                taken. An iterable dataset, or a loader of another kind, gives its first samples in order.
            num_samples: how many at most; None: all.
            batch_size: None: the loader's, lowered where that is needed to have 8 batches.
            seed: of the choice.

        Raises:
            ValueError: fewer than 4 samples, or fewer than 4 in a batch.
        """
        is_stream = isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset)
        is_whole = not isinstance(loader, DataLoader) or loader.batch_sampler is None
        what = f"the iterable dataset {type(loader.dataset).__name__}" if is_stream else f"the {type(loader).__name__}"
        if is_whole and batch_size is not None:
            raise ValueError(
                f"batch_size= has no effect on {what} that gives whole batches; pass a dataloader= with batches of "
                "that size"
            )
        if is_stream or is_whole:
            _warn_in_order(what)
        if is_stream and num_samples is None and not hasattr(loader.dataset, "__len__"):
            raise ValueError("num_samples=None needs a dataset with a length; say how many samples to take")
        if is_whole:
            with isolated_rng(seed):
                return StreamProbe(_take_batches(_whole_batches(loader), num_samples), seed)
        if is_stream:
            with isolated_rng(seed):
                dataset = _copied(loader.dataset)
                samples = list(islice(iter(dataset), num_samples))
                chunks = _chunks(samples, _choose_batch_size(len(samples), loader, batch_size))
                places = _chunks(range(len(samples)), len(chunks[0]))
                batches = [
                    ProbeBatch(i, loader.collate_fn(chunk), len(chunk), tuple(place))
                    for i, (chunk, place) in enumerate(zip(chunks, places, strict=True))
                ]
            return StreamProbe(batches, seed)
        available = _indices(loader)
        order = torch.randperm(len(available), generator=torch.Generator().manual_seed(seed))
        indices = [available[i] for i in order[:num_samples].tolist()]
        return DatasetProbe(loader, _chunks(indices, _choose_batch_size(len(indices), loader, batch_size)), seed)


class DatasetProbe(ProbeSet):
    """Batches of given indices of the dataset behind a loader.

    Attributes:
        indices: dataset indices, batch by batch.
    """

    def __init__(
        self, loader: DataLoader[Any], indices: list[list[int]], seed: int, *, is_shuffled: bool = True
    ) -> None:
        super().__init__(seed)
        self.is_shuffled = is_shuffled
        self.indices = indices
        self._loader = loader

    @property
    def description(self) -> str:
        """See `ProbeSet.description`."""
        return f"{super().description}, indices {digest(repr(self.indices).encode())}"

    def batches(self, rank: int = 0, world_size: int = 1) -> Generator[ProbeBatch]:
        """See `ProbeSet.batches`."""
        places = range(rank, len(self.indices), world_size)
        loader = self._loader_of([self.indices[place] for place in places])
        for place, data in zip(places, loader, strict=True):
            yield ProbeBatch(place, data, len(self.indices[place]), tuple(self.indices[place]))

    def first_batch(self, *, drop_last_sample: bool = False) -> ProbeBatch:
        """See `ProbeSet.first_batch`."""
        indices = self.indices[0][:-1] if drop_last_sample else self.indices[0]
        (data,) = self._loader_of([indices], num_workers=0)
        return ProbeBatch(0, data, len(indices), tuple(indices))

    def _loader_of(self, indices: list[list[int]], num_workers: int | None = None) -> DataLoader[Any]:
        loader = self._loader
        workers = loader.num_workers if num_workers is None else num_workers
        parallel = {}
        if workers and indices:
            parallel = {
                "num_workers": workers,
                "timeout": loader.timeout,
                "worker_init_fn": loader.worker_init_fn,
                "multiprocessing_context": loader.multiprocessing_context,
                "prefetch_factor": loader.prefetch_factor,
            }
        seeds = {batch[0]: self.batch_seed(place) for place, batch in enumerate(self.indices)}
        return DataLoader(
            _SeededDataset(loader.dataset, seeds),
            batch_sampler=indices,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            generator=torch.Generator().manual_seed(self.seed),
            **parallel,
        )


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


class _SeededDataset(Dataset[Any]):
    """A dataset whose random transforms give a batch the same inputs at each pass, in any process."""

    def __init__(self, dataset: Dataset[Any], seeds: dict[int, int]) -> None:
        self._dataset = dataset
        self._seeds = seeds

    def __getitems__(self, indices: list[int]) -> list[Any]:
        seed_rng(self._seeds[indices[0]])
        fetch = getattr(self._dataset, "__getitems__", None)
        if fetch is not None:
            return list(fetch(indices))
        return [self._dataset[index] for index in indices]

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]


def _as_probe_batch(index: int, batch: Any, start: int, step: int = 1) -> ProbeBatch:
    if isinstance(batch, ProbeBatch):
        return batch
    # Of graphs, the first tensor has an entry per node, and batches of them say their size.
    said = getattr(batch, "batch_size", None)
    size = said if isinstance(said, int) else next((t.size(0) for t in tensors_in(batch) if t.ndim), None)
    if size is None:
        raise ValueError(f"cannot tell the batch size of a {type(batch).__name__} without tensors")
    return ProbeBatch(index, batch, size, tuple(range(start, start + size * step, step)))


def _copied(dataset: IterableDataset[Any]) -> IterableDataset[Any]:
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


def _whole_batches(loader: Iterable[Any]) -> Iterable[Any]:
    """Of a loader that does not put samples together: its sampler's or dataset's items are batches already."""
    if not isinstance(loader, DataLoader):
        return loader
    if isinstance(loader.dataset, IterableDataset):
        return map(loader.collate_fn, _copied(loader.dataset))
    return (loader.collate_fn(loader.dataset[index]) for index in _own_sampler(loader))


def _take_batches(source: Iterable[Any], num_samples: int | None) -> list[ProbeBatch]:
    batches: list[ProbeBatch] = []
    count = 0
    for i, batch in enumerate(source):
        batches.append(_as_probe_batch(i, batch, count))
        count += batches[-1].num_samples
        if num_samples is not None and count >= num_samples:
            break
    _check_enough(count)
    return batches


def _choose_batch_size(total: int, loader: DataLoader[Any], batch_size: int | None) -> int:
    _check_enough(total)
    if batch_size is not None:
        return batch_size
    own = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    if own is None:
        raise ValueError(
            f"cannot tell the batch size of the validation loader ({type(loader.batch_sampler).__name__}); "
            "pass batch_size=, or a dataloader= of your own"
        )
    if own < MIN_SAMPLES:
        raise ValueError(
            f"the validation loader's batches of {own} are too small for CKA, which needs {MIN_SAMPLES} samples; pass "
            "batch_size=, 64 or more if there are enough"
        )
    return max(MIN_SAMPLES, min(int(own), total // MIN_BATCHES))


def _chunks(items: Sequence[T], size: int) -> list[list[T]]:
    chunks = [list(items[start : start + size]) for start in range(0, len(items), size)]
    return [chunk for chunk in chunks if len(chunk) >= MIN_SAMPLES]


def _check_enough(count: int) -> None:
    if count < MIN_SAMPLES:
        raise ValueError(f"the probe set has {count} samples, but CKA needs at least {MIN_SAMPLES}")


def _indices(loader: DataLoader[Any]) -> Sequence[int]:
    """Of the samples that the loader draws from: all of the dataset, or those that its sampler was given."""
    sampler = _own_sampler(loader)
    if isinstance(sampler, SubsetRandomSampler):
        return [_plain(index) for index in sampler.indices]
    size = len(loader.dataset)  # type: ignore[arg-type]  # Map-style datasets have a length.
    return range(size)


def _own_sampler(loader: DataLoader[Any]) -> Any:
    """The sampler that the user gave. Lightning wraps it as if it were a dataset, to deal it out to processes."""
    return getattr(getattr(loader.sampler, "dataset", None), "_sampler", loader.sampler)


def _plain(index: Any) -> Any:
    """A dataset index as an int, if it is one of an array or a tensor."""
    return index.item() if isinstance(index, Tensor | np.generic) else index


def _warn_in_order(what: str) -> None:
    warnings.warn(
        f"the probe set is made of the first samples of {what}, in their order: if that order is not random, "
        "CKA is biased. Then pass a dataloader= that shuffles.",
        stacklevel=3,
    )
