"""`DatasetProbe`: a probe set of chosen samples of a map-style dataset."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet
from lightning_cka.probe.worker_options import SeededDataset, SeededWorkerInit, iterate, worker_options
from lightning_cka.runtime.files import digest


class DatasetProbe(ProbeSet):
    """Batches of given samples of a loader's dataset.

    Samples are loaded as the user's loader loads them. If it has workers, the main process never calls the dataset:
    a file that is opened at the first use must not be shared with workers that are forked later.

    Args:
        loader: Its dataset, ``collate_fn`` and workers load the samples.
        indices: Dataset indices, batch by batch.
        seed: See `ProbeSet`.
        is_shuffled: Whether the batches are random subsets by construction.
        keys: What the dataset is indexed with, in the order of ``indices``. None: the indices. With keys, ``indices``
            are positions among all that the sampler yields.

    Attributes:
        indices: Dataset indices, batch by batch.
        keys: What the dataset is indexed with, batch by batch.
        available: The samples that the probe set was drawn from; empty if its batches were given.
        redraw: Draws a probe set from other samples; None if the batches were given.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        indices: list[list[int]],
        seed: int,
        *,
        is_shuffled: bool = True,
        keys: list[list[Any]] | None = None,
    ) -> None:
        super().__init__(seed)
        self.is_shuffled = is_shuffled
        self.indices = indices
        if keys is not None:
            self.sample_kind = "sampler position"
        self.keys = indices if keys is None else keys
        self.available: Sequence[Any] = ()
        self.redraw: Callable[[Sequence[Any]], DatasetProbe] | None = None
        self._loader = loader
        self._first_batches: list[ProbeBatch | Exception] = []

    @property
    def description(self) -> str:
        """See `ProbeSet.description`."""
        return f"{super().description}, indices {digest(repr(self.indices).encode())}"

    @property
    def dataset(self) -> Dataset[Any]:
        """Return the dataset."""
        return self._loader.dataset

    def with_batches(self, indices: list[list[int]]) -> DatasetProbe:
        """Return a probe set of other given batches of the same loader."""
        return DatasetProbe(self._loader, indices, self.seed, is_shuffled=self.is_shuffled)

    def batches(self, rank: int = 0, world_size: int = 1) -> Generator[ProbeBatch]:
        """See `ProbeSet.batches`."""
        batch_indices = range(rank, len(self.indices), world_size)
        loader = self._loader_of([self._seeded(i) for i in batch_indices])
        for i, data in zip(batch_indices, iterate(loader), strict=True):
            yield ProbeBatch(i, data, len(self.indices[i]), tuple(self.indices[i]))

    def first_batch(self, *, drop_last_sample: bool = False) -> ProbeBatch:
        """See `ProbeSet.first_batch`. Batches from workers are kept until `release_first_batch`."""
        if not self._loader.num_workers:
            return next(self._load_first([drop_last_sample]))
        if not self._first_batches:
            # Starting workers is slow, so they load both batches at once.
            self._first_batches = list(_until_error(self._load_first([False, True])))
        batch = self._first_batches[drop_last_sample]
        if isinstance(batch, Exception):
            raise batch
        return replace(batch, data=copy.deepcopy(batch.data))  # A model may write to its inputs.

    def release_first_batch(self) -> None:
        """See `ProbeSet.release_first_batch`."""
        self._first_batches = []

    def _load_first(self, drop_last_sample: list[bool]) -> Iterator[ProbeBatch]:
        """Load the first batch, with or without its last sample."""
        sizes = [len(self.indices[0]) - drop for drop in drop_last_sample]
        loader = self._loader_of([self._seeded(0)[: 1 + size] for size in sizes])
        for size, data in zip(sizes, iterate(loader), strict=True):
            yield ProbeBatch(0, data, size, tuple(self.indices[0][:size]))

    def _seeded(self, i: int) -> list[Any]:
        """Return one batch as `SeededDataset` takes it."""
        return [self.batch_seed(i), *self.keys[i]]

    def _loader_of(self, batches: list[list[Any]]) -> DataLoader[Any]:
        """Make a loader of the given batches, with the user's workers."""
        loader = self._loader
        options = worker_options(loader) if batches else {}
        if options:
            options["num_workers"] = min(loader.num_workers, len(batches))
            options["worker_init_fn"] = SeededWorkerInit(loader.worker_init_fn)
        return DataLoader(
            SeededDataset(loader.dataset),
            batch_sampler=batches,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            generator=torch.Generator("cpu").manual_seed(self.seed),
            **options,
        )


def _until_error(batches: Iterator[ProbeBatch]) -> Iterator[ProbeBatch | Exception]:
    """Yield the first batch, and the second or the error that it raises: not all can be collated with a sample less."""
    yield next(batches)
    try:
        yield next(batches)
    except Exception as error:  # noqa: BLE001  # Raised where the batch is asked for.
        yield error
