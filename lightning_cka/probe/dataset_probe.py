"""`DatasetProbe`: a probe set of chosen dataset indices."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet
from lightning_cka.runtime.files import digest
from lightning_cka.runtime.rng import seed_rng


class DatasetProbe(ProbeSet):
    """Batches of given indices of a loader's dataset.

    Args:
        loader: Its dataset, ``collate_fn`` and workers load the samples.
        indices: Dataset indices, batch by batch.
        seed: See `ProbeSet`.
        is_shuffled: Whether the batches are random subsets by construction.

    Attributes:
        indices: Dataset indices, batch by batch.
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
        batch_indices = range(rank, len(self.indices), world_size)
        loader = self._loader_of([self.indices[i] for i in batch_indices])
        for i, data in zip(batch_indices, loader, strict=True):
            yield ProbeBatch(i, data, len(self.indices[i]), tuple(self.indices[i]))

    def first_batch(self, *, drop_last_sample: bool = False) -> ProbeBatch:
        """See `ProbeSet.first_batch`."""
        indices = self.indices[0][:-1] if drop_last_sample else self.indices[0]
        (data,) = self._loader_of([indices], num_workers=0)
        return ProbeBatch(0, data, len(indices), tuple(indices))

    def _loader_of(self, indices: list[list[int]], num_workers: int | None = None) -> DataLoader[Any]:
        """Make a loader of the given batches. ``num_workers`` None takes the user's number of workers."""
        loader = self._loader
        workers = loader.num_workers if num_workers is None else num_workers
        worker_options = {}
        if workers and indices:
            worker_options = {
                "num_workers": workers,
                "timeout": loader.timeout,
                "worker_init_fn": loader.worker_init_fn,
                "multiprocessing_context": loader.multiprocessing_context,
                "prefetch_factor": loader.prefetch_factor,
            }
        seeds = {batch[0]: self.batch_seed(i) for i, batch in enumerate(self.indices)}
        return DataLoader(
            _SeededDataset(loader.dataset, seeds),
            batch_sampler=indices,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            generator=torch.Generator().manual_seed(self.seed),
            **worker_options,
        )


class _SeededDataset(Dataset[Any]):
    """Seed each batch, so that random transforms give the same inputs at each pass and in any process.

    Args:
        dataset: The user's dataset.
        seeds: The seed of each batch, by the dataset index of its first sample.
    """

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
