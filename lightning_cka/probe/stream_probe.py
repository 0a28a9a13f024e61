"""`StreamProbe`: a probe set of batches in the order in which a loader yields them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import accumulate, count, islice
from typing import Any

from lightning.fabric.utilities.data import sized_len

from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.probe.batch_part import without_last_sample
from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet
from lightning_cka.probe.sample_places import SamplePlaces, candidate_places
from lightning_cka.probe.samplers import has_distributed_sampler
from lightning_cka.probe.worker_options import iterate
from lightning_cka.runtime.rng import seed_rng, seeded_generators

_END = object()


class StreamProbe(ProbeSet):
    """Batches in the order of a user's loader, or of a list of batches that were read before.

    Args:
        source: A loader, or a list of batches or of `ProbeBatch`.
        seed: See `ProbeSet`.
        max_blocks: Maximum number of Gram blocks. None takes all of them.
        gram_batch_size: Consecutive batches are joined to Gram blocks of at most this many samples. None: each batch is
            a block.
        read: Reads the source again if its samples are found to lie elsewhere than was assumed when it was read.

    Attributes:
        places: Where in a batch the samples lie. None: not yet known.
        is_distributed: Whether the loader's sampler already splits the samples over processes.

    Raises:
        TypeError: The source is an iterator, which yields its batches only once.
    """

    sample_kind = "loader position"
    is_shuffled = False

    def __init__(
        self,
        source: Iterable[Any],
        seed: int,
        max_blocks: int | None = None,
        *,
        gram_batch_size: int | None = None,
        read: Callable[[SamplePlaces | None], list[Any]] | None = None,
    ) -> None:
        super().__init__(seed)
        if isinstance(source, Iterator):
            raise TypeError(
                f"the probe dataloader must be iterable more than once, but a {type(source).__name__} is not; pass a "
                "DataLoader or a list of batches"
            )
        self._source = source
        self._max_blocks = max_blocks
        self._gram_batch_size = gram_batch_size
        self._read = read
        self._first: Any = _END
        self.places: SamplePlaces | None = None
        self._is_settled = False
        self.is_distributed = has_distributed_sampler(source)

    @property
    def description(self) -> str:
        """See `ProbeSet.description`."""
        joined = "" if self._gram_batch_size is None else f", Gram matrices of {self._gram_batch_size} samples"
        return f"{super().description}{joined}"

    @property
    def num_blocks(self) -> int | None:
        """See `ProbeSet.num_blocks`."""
        length: int | None = sized_len(self._source)
        return length if self._gram_batch_size is None else None

    def batches(self, rank: int = 0, world_size: int = 1) -> Generator[ProbeBatch]:
        """See `ProbeSet.batches`. A loader with a distributed sampler is taken whole on each rank."""
        with seeded_generators(self._source, self.seed), closing(self._numbered(rank, world_size)) as numbered:
            for i, block in enumerate(islice(_in_blocks(numbered, self._gram_batch_size), self._max_blocks)):
                if not self.is_distributed and i % world_size != rank:
                    continue
                index = rank + i * world_size if self.is_distributed else i
                starts = accumulate((batch.num_samples for batch in block), initial=0)
                size = sum(batch.num_samples for batch in block)
                for batch, start in zip(block, starts, strict=False):
                    data = copy.deepcopy(batch.data) if isinstance(self._source, list) else batch.data
                    yield replace(batch, index=index, data=data, start=start, block=size)

    def _numbered(self, rank: int, world_size: int) -> Generator[ProbeBatch]:
        """Yield all batches of the source, with the numbers of their samples."""
        start = 0
        with closing(self._seeded(iterate(self._source))) as source:
            for i, data in enumerate(source):
                # A distributed sampler gives this rank the samples rank, rank + world_size, ...
                first, step = (rank + start * world_size, world_size) if self.is_distributed else (start, 1)
                batch = self._as_probe_batch(i, data, first, step)
                yield batch
                start += batch.num_samples

    def _seeded(self, source: Iterator[Any]) -> Generator[Any]:
        """Seed each fetch, so that a model that draws random numbers does not change the next batch's transforms."""
        for i in count():
            seed_rng(self.batch_seed(i))
            batch = next(source, _END)
            if batch is _END:
                return
            yield batch

    def first_batch(self, *, drop_last_sample: bool = False) -> ProbeBatch:
        """See `ProbeSet.first_batch`. A batch from workers is kept until `release_first_batch`.

        Raises:
            ValueError: There is no batch, it is larger than a Gram block, or the last sample cannot be dropped.
        """
        batch = self._as_probe_batch(0, self._first_data(), 0)
        if self._gram_batch_size is not None:
            if batch.num_samples > self._gram_batch_size:
                raise ValueError(
                    f"gram_batch_size is {self._gram_batch_size}, but a batch of the dataloader has "
                    f"{batch.num_samples} samples and is not cut: pass smaller batches, or a larger gram_batch_size="
                )
            batch = replace(batch, block=self._gram_batch_size)
        if not drop_last_sample:
            return batch
        n = batch.num_samples
        fewer = without_last_sample(batch.data, n)
        return replace(batch, data=fewer, num_samples=n - 1, samples=batch.samples[:-1])

    def release_first_batch(self) -> None:
        """See `ProbeSet.release_first_batch`."""
        self._first = _END

    def candidate_places(self) -> list[SamplePlaces]:
        """Return where in the first batch the samples may lie, the most likely first; nothing if that is known."""
        data = None if self._is_settled else self._first_data()
        return [] if self._is_settled or isinstance(data, ProbeBatch) else self._candidates(data)

    def settle(self, places: SamplePlaces) -> None:
        """Fix where in a batch the samples lie, for all batches."""
        self.places = places
        self._is_settled = True
        if self._read is not None and self._candidates(self._first_data())[0].size != places.size:
            self._source = self._read(places)  # Too many or too few batches were read.

    def _candidates(self, data: Any) -> list[SamplePlaces]:
        return candidate_places(data, MIN_SAMPLES if self._gram_batch_size is None else 1)

    def _first_data(self) -> Any:
        if self._first is not _END:
            return copy.deepcopy(self._first)
        with seeded_generators(self._source, self.seed):
            source = self._seeded(iterate(self._source))
            with closing(source):
                data = next(source, _END)
        if data is _END:
            raise ValueError("the probe dataloader yields no batch")
        if getattr(self._source, "num_workers", 0):
            self._first = data  # Starting workers is slow.
        is_kept = isinstance(self._source, list) or self._first is not _END
        return copy.deepcopy(data) if is_kept else data  # A model may write to its inputs.

    def _as_probe_batch(self, index: int, data: Any, first_sample: int, sample_step: int = 1) -> ProbeBatch:
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
        if self.places is None:
            self.places = self._candidates(data)[0]
        size = self.places.num_samples(data)
        stop = first_sample + size * sample_step
        return ProbeBatch(index, data, size, tuple(range(first_sample, stop, sample_step)))


def _in_blocks(batches: Iterator[ProbeBatch], block_size: int | None) -> Iterator[list[ProbeBatch]]:
    """Join consecutive batches to Gram blocks of at most ``block_size`` samples; None: one batch each."""
    block: list[ProbeBatch] = []
    for batch in batches:
        if block and (block_size is None or batch.num_samples + sum(b.num_samples for b in block) > block_size):
            yield block
            block = []
        block.append(batch)
        if block_size is None:
            yield block
            block = []
    if block:
        yield block
