"""`DatasetProbe`: a probe set of chosen samples of a map-style dataset."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet
from lightning_cka.probe.worker_options import SeededDataset, SeededWorkerInit, iterate, worker_options
from lightning_cka.runtime.files import digest

_Part = tuple[int, int, int]
"""The index of a Gram block, a batch's first sample in it, and the number of the batch's samples."""


class DatasetProbe(ProbeSet):
    """Batches of given samples of a loader's dataset.

    Samples are loaded as the user's loader loads them. If it has workers, the main process never calls the dataset:
    a file that is opened at the first use must not be shared with workers that are forked later.

    Args:
        loader: Its dataset, ``collate_fn`` and workers load the samples.
        indices: Dataset indices, Gram block by Gram block.
        seed: See `ProbeSet`.
        is_shuffled: Whether the blocks are random subsets by construction.
        keys: What the dataset is indexed with, in the order of ``indices``. None: the indices. With keys, ``indices``
            are positions among all that the sampler yields.
        parts: Sizes of the batches of each block, each for one forward pass. None: each block is one batch.

    Attributes:
        indices: Dataset indices, block by block.
        keys: What the dataset is indexed with, block by block.
        parts: Sizes of the batches of each block.
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
        parts: list[list[int]] | None = None,
    ) -> None:
        super().__init__(seed)
        self.is_shuffled = is_shuffled
        self.indices = indices
        if keys is not None:
            self.sample_kind = "sampler position"
        self.keys = indices if keys is None else keys
        self.parts = [[len(block)] for block in indices] if parts is None else parts
        self.available: Sequence[Any] = ()
        self.redraw: Callable[[Sequence[Any]], DatasetProbe] | None = None
        self._loader = loader
        self._first_batches: list[ProbeBatch | Exception] = []

    @property
    def description(self) -> str:
        """See `ProbeSet.description`."""
        return f"{super().description}, indices {digest(repr(self.indices).encode())}"

    @property
    def num_blocks(self) -> int:
        """See `ProbeSet.num_blocks`."""
        return len(self.indices)

    @property
    def dataset(self) -> Dataset[Any]:
        """Return the dataset."""
        return self._loader.dataset

    def with_blocks(self, blocks: list[tuple[list[int], list[int]]]) -> DatasetProbe:
        """Return a probe set of other given blocks of the same loader: dataset indices, and sizes of batches."""
        indices, parts = [block for block, _ in blocks], [parts for _, parts in blocks]
        return DatasetProbe(self._loader, indices, self.seed, is_shuffled=self.is_shuffled, parts=parts)

    def batches(self, rank: int = 0, world_size: int = 1) -> Generator[ProbeBatch]:
        """See `ProbeSet.batches`."""
        return self._load([part for i in range(rank, len(self.indices), world_size) for part in self._parts_of(i)])

    def first_block(self) -> list[ProbeBatch]:
        """See `ProbeSet.first_block`."""
        return list(self._load(self._parts_of(0)))

    def first_batch(self, *, drop_last_sample: bool = False) -> ProbeBatch:
        """See `ProbeSet.first_batch`. Batches from workers are kept until `release_first_batch`.

        If forward passes have one sample, two are loaded, if the ``collate_fn`` can join them: only two batches of
        different sizes show which dimension is the batch.
        """
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
        size = self.parts[0][0]
        if size == 1 and len(self.indices[0]) > 1 and self._joins_two():
            size = 2
        return self._load([(0, 0, size - drop) for drop in drop_last_sample])

    def _joins_two(self) -> bool:
        """Whether the ``collate_fn`` can make a batch of two samples."""
        try:
            return bool(list(self._load([(0, 0, 2)])))
        except Exception:  # noqa: BLE001  # User code can raise anything, such as for images of two sizes.
            return False

    def _parts_of(self, i: int) -> list[_Part]:
        """Return the batches of one block."""
        starts = accumulate(self.parts[i], initial=0)
        return [(i, start, size) for start, size in zip(starts, self.parts[i], strict=False)]

    def _load(self, parts: list[_Part]) -> Generator[ProbeBatch]:
        """Load batches."""
        loader = self._loader_of([self._seeded(*part) for part in parts])
        for (i, start, size), data in zip(parts, iterate(loader), strict=True):
            block = self.indices[i]
            yield ProbeBatch(i, data, size, tuple(block[start : start + size]), start, len(block))

    def _seeded(self, i: int, start: int, size: int) -> list[Any]:
        """Return one batch as `SeededDataset` takes it."""
        return [self.batch_seed(i, start), *self.keys[i][start : start + size]]

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
