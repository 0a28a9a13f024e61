"""Choose the probe samples from a loader, with a seed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence, Sized
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler

from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.probe.dataset_probe import DatasetProbe
from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet, check_enough, own_sampler, plain_index
from lightning_cka.probe.stream_probe import StreamProbe, copied, take_batches, whole_batches
from lightning_cka.runtime.rng import isolated_rng, seeded_generators

T = TypeVar("T")


MIN_BATCHES = 8
"""The standard error is estimated between batches."""


def draw_probe_set(
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
            return StreamProbe(take_batches(whole_batches(loader), num_samples), seed)
    if is_stream:
        with isolated_rng(seed):
            dataset = copied(loader.dataset)
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


def probe_set_of_loader(loader: Any, *, seed: int = 0, max_batches: int | None = None) -> ProbeSet:
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
        indices = [list(map(plain_index, batch)) for batch in islice(loader.batch_sampler, max_batches)]
    if not indices or not all(isinstance(index, int) for batch in indices for index in batch):
        return stream
    return DatasetProbe(loader, indices, seed, is_shuffled=False)


def _choose_batch_size(total: int, loader: DataLoader[Any], batch_size: int | None) -> int:
    check_enough(total)
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


def _indices(loader: DataLoader[Any]) -> Sequence[int]:
    """Of the samples that the loader draws from: all of the dataset, or those that its sampler was given."""
    sampler = own_sampler(loader)
    if isinstance(sampler, SubsetRandomSampler):
        return [plain_index(index) for index in sampler.indices]
    size = len(loader.dataset)  # type: ignore[arg-type]  # Map-style datasets have a length.
    return range(size)


def _warn_in_order(what: str) -> None:
    warnings.warn(
        f"the probe set is made of the first samples of {what}, in their order: if that order is not random, "
        "CKA is biased. Then pass a dataloader= that shuffles.",
        stacklevel=3,
    )


def probe_set_like(batches: list[list[int]], sample_kind: str, loader: Any, *, seed: int) -> ProbeSet:
    """The samples of another probe set, in the same batches.

    Args:
        batches: the samples' numbers, batch by batch.
        sample_kind: what the numbers are.
        loader: a `DataLoader` over the same map-style dataset.
        seed: of the other probe set.

    Raises:
        ValueError: the numbers are not dataset indices, or the dataset does not have them.
    """
    if sample_kind != DatasetProbe.sample_kind:
        raise ValueError(f"like= needs a bank of samples with dataset indices, but this one's are {sample_kind}s")
    if not isinstance(getattr(loader, "dataset", None), Sized):
        raise ValueError(f"like= needs a DataLoader over a map-style dataset, but got a {type(loader).__name__}")
    if (largest := max(map(max, batches))) >= len(loader.dataset):
        raise ValueError(f"like= has sample {largest}, but the dataset has {len(loader.dataset)}")
    return DatasetProbe(loader, batches, seed)
