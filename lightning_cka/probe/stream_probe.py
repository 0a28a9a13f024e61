"""`StreamProbe`: a probe set of batches in the order in which a loader yields them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

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
        max_batches: Maximum number of batches. None takes all of them.
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
        max_batches: int | None = None,
        *,
        read: Callable[[SamplePlaces | None], list[Any]] | None = None,
    ) -> None:
        super().__init__(seed)
        if isinstance(source, Iterator):
            raise TypeError(
                f"the probe dataloader must be iterable more than once, but a {type(source).__name__} is not; pass a "
                "DataLoader or a list of batches"
            )
        self._source = source
        self._max_batches = max_batches
        self._read = read
        self._first: Any = _END
        self.places: SamplePlaces | None = None
        self._is_settled = False
        self.is_distributed = has_distributed_sampler(source)

    def batches(self, rank: int = 0, world_size: int = 1) -> Generator[ProbeBatch]:
        """See `ProbeSet.batches`. A loader with a distributed sampler is taken whole on each rank."""
        with seeded_generators(self._source, self.seed):
            start = 0
            for i, data in enumerate(self._seeded(iterate(self._source))):
                if isinstance(self._source, list):
                    data = copy.deepcopy(data)  # A model may write to its inputs.
                if self.is_distributed:
                    # A distributed sampler gives this rank the samples rank, rank + world_size, ...
                    batch = self._as_probe_batch(rank + i * world_size, data, rank + start * world_size, world_size)
                else:
                    batch = self._as_probe_batch(i, data, start)
                if self.is_distributed or i % world_size == rank:
                    yield batch
                start += batch.num_samples

    def _seeded(self, source: Iterator[Any]) -> Generator[Any]:
        """Seed each fetch, so that a model that draws random numbers does not change the next batch's transforms."""
        for i in count():
            seed_rng(self.batch_seed(i))
            batch = next(source, _END)
            if batch is _END or i == self._max_batches:
                return
            yield batch

    def first_batch(self, *, drop_last_sample: bool = False) -> ProbeBatch:
        """See `ProbeSet.first_batch`. A batch from workers is kept until `release_first_batch`.

        Raises:
            ValueError: There is no batch, or the last sample cannot be dropped.
        """
        batch = self._as_probe_batch(0, self._first_data(), 0)
        if not drop_last_sample:
            return batch
        n = batch.num_samples
        return replace(batch, data=without_last_sample(batch.data, n), num_samples=n - 1, samples=batch.samples[:-1])

    def release_first_batch(self) -> None:
        """See `ProbeSet.release_first_batch`."""
        self._first = _END

    def candidate_places(self) -> list[SamplePlaces]:
        """Return where in the first batch the samples may lie, the most likely first; nothing if that is known."""
        data = None if self._is_settled else self._first_data()
        return [] if self._is_settled or isinstance(data, ProbeBatch) else candidate_places(data)

    def settle(self, places: SamplePlaces) -> None:
        """Fix where in a batch the samples lie, for all batches."""
        self.places = places
        self._is_settled = True
        if self._read is not None and candidate_places(self._first_data())[0].size != places.size:
            self._source = self._read(places)  # Too many or too few batches were read.

    def _first_data(self) -> Any:
        if self._first is not _END:
            return copy.deepcopy(self._first)
        with seeded_generators(self._source, self.seed):
            source = self._seeded(iterate(self._source))
            with contextlib.closing(source):
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
            self.places = candidate_places(data)[0]
        size = self.places.num_samples(data)
        stop = first_sample + size * sample_step
        return ProbeBatch(index, data, size, tuple(range(first_sample, stop, sample_step)))
