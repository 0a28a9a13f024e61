"""Load samples where the user's loader would: in workers that have the user's options, or in the main process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from lightning_cka.runtime.devices import cpu_by_default
from lightning_cka.runtime.generator_states import find_generators, kept_generators, seed_generator
from lightning_cka.runtime.rng import seed_rng


def worker_options(loader: DataLoader[Any]) -> dict[str, Any]:
    """Return the arguments of a `DataLoader` that has the workers of another one; none if it has no workers.

    Workers are never persistent: each pass starts from the same dataset, so that it reads the same inputs.
    """
    if not loader.num_workers:
        return {}
    return {
        "num_workers": loader.num_workers,
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
        "prefetch_factor": loader.prefetch_factor,
    }


def iterate(loader: Iterable[Any]) -> Iterator[Any]:
    """Iterate over a loader, whatever `torch.set_default_device` is."""
    generator = getattr(loader, "generator", None)
    # A DataLoader draws its workers' seed on the default device, even if its generator is on the CPU.
    with cpu_by_default([generator] if isinstance(generator, torch.Generator) else []):
        return iter(loader)


class SeededDataset(Dataset[Any]):
    """Seed each batch, so that random transforms give the same inputs at each pass and in any process.

    Random generators that the dataset owns are seeded, too, and restored after each batch.

    Its batches are lists ``[seed, sample, sample, ...]``.

    Args:
        dataset: The user's dataset.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset
        self._generators: list[Any] | None = None

    def __getitems__(self, batch: list[Any]) -> list[Any]:
        seed, *samples = batch
        if self._generators is None:  # In a worker, where the copies are that it reads.
            self._generators = find_generators(self.dataset)
        with kept_generators(self._generators):
            seed_rng(seed)
            for place, generator in enumerate(self._generators):
                seed_generator(generator, seed + place)
            return self._fetch(samples)

    def _fetch(self, samples: list[Any]) -> list[Any]:
        fetch = getattr(self.dataset, "__getitems__", None)
        if fetch is not None:
            return list(fetch(samples))
        return [self.dataset[sample] for sample in samples]

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError("samples are loaded by batch")


class SeededWorkerInit:
    """Make `torch.utils.data.get_worker_info` return the user's dataset, then call the user's ``worker_init_fn``.

    Args:
        init_fn: The user's function; None: no function.
    """

    def __init__(self, init_fn: Callable[[int], Any] | None) -> None:
        self._init_fn = init_fn

    def __call__(self, worker_id: int) -> None:
        """Initialize one worker."""
        info = get_worker_info()
        if info is not None and isinstance(info.dataset, SeededDataset):
            object.__setattr__(info, "dataset", info.dataset.dataset)
        if self._init_fn is not None:
            self._init_fn(worker_id)


class CountedCollate:
    """Return the number of samples together with the collated batch.

    Args:
        collate_fn: The user's function.
    """

    def __init__(self, collate_fn: Callable[[list[Any]], Any]) -> None:
        self._collate_fn = collate_fn

    def __call__(self, samples: list[Any]) -> tuple[int, Any]:
        """Collate one batch."""
        return len(samples), self._collate_fn(samples)
