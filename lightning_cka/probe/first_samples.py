"""Take the first samples of a stream, in order, as the probe set."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from itertools import islice
from typing import Any, cast

from torch.utils.data import DataLoader, IterableDataset

from lightning_cka.probe.batching import check_num_samples, choose_batch_size, split_into_batches
from lightning_cka.probe.probe_set import ProbeBatch
from lightning_cka.probe.samplers import unwrapped_sampler
from lightning_cka.probe.stream_probe import StreamProbe, as_probe_batch
from lightning_cka.runtime.rng import isolated_rng


def first_batches(loader: Any, num_samples: int | None, batch_size: int | None, seed: int) -> StreamProbe:
    """Take the first batches of a loader that yields whole batches.

    Raises:
        ValueError: ``batch_size`` is not None, ``num_samples`` is None for a dataset without a length, or there are
            fewer than 4 samples.
    """
    source = _source_name(loader)
    if batch_size is not None:
        raise ValueError(
            f"batch_size= has no effect on {source}, which yields whole batches; pass a dataloader= with batches of "
            "that size"
        )
    _warn_not_shuffled(source)
    _check_finite(loader, num_samples)
    with isolated_rng(seed):
        return StreamProbe(_until_num_samples(_whole_batches(loader), num_samples), seed)


def first_samples(loader: DataLoader[Any], num_samples: int | None, batch_size: int | None, seed: int) -> StreamProbe:
    """Take the first samples of an iterable dataset, and collate them into batches.

    Raises:
        ValueError: ``num_samples`` is None for a dataset without a length, or a batch or the probe set has fewer than
            4 samples.
    """
    _warn_not_shuffled(_source_name(loader))
    _check_finite(loader, num_samples)
    with isolated_rng(seed):
        samples = list(islice(iter(_copy_of_stream(cast(IterableDataset[Any], loader.dataset))), num_samples))
        batch_size = choose_batch_size(len(samples), loader, batch_size)
        positions = split_into_batches(range(len(samples)), batch_size)
        batches = [
            ProbeBatch(i, loader.collate_fn(batch), len(batch), tuple(positions[i]))
            for i, batch in enumerate(split_into_batches(samples, batch_size))
        ]
    return StreamProbe(batches, seed)


def _source_name(loader: Any) -> str:
    if _has_stream(loader):
        return f"the iterable dataset {type(loader.dataset).__name__}"
    return f"the {type(loader).__name__}"


def _has_stream(loader: Any) -> bool:
    return isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset)


def _warn_not_shuffled(source: str) -> None:
    warnings.warn(
        f"the probe set consists of the first samples of {source}, in their order. If that order is not random, CKA is "
        "biased; in that case pass a dataloader= that shuffles",
        stacklevel=4,
    )


def _check_finite(loader: Any, num_samples: int | None) -> None:
    if num_samples is None and _has_stream(loader) and not hasattr(loader.dataset, "__len__"):
        raise ValueError("num_samples=None needs a dataset with a length; pass the number of samples")


def _copy_of_stream(dataset: IterableDataset[Any]) -> IterableDataset[Any]:
    """Copy a stream, so that reading the copy does not advance the original."""
    try:
        return copy.deepcopy(dataset)
    except Exception as error:  # noqa: BLE001  # User code in `__deepcopy__` can raise anything.
        warnings.warn(
            f"{type(dataset).__name__} cannot be copied ({error}). If it has internal state, reading the probe set "
            "advances it",
            stacklevel=4,
        )
        return dataset


def _whole_batches(loader: Iterable[Any]) -> Iterable[Any]:
    """Iterate over a loader whose dataset or sampler makes the batches."""
    if not isinstance(loader, DataLoader):
        return loader
    if isinstance(loader.dataset, IterableDataset):
        return map(loader.collate_fn, _copy_of_stream(loader.dataset))
    return (loader.collate_fn(loader.dataset[index]) for index in unwrapped_sampler(loader))


def _until_num_samples(source: Iterable[Any], num_samples: int | None) -> list[ProbeBatch]:
    """Take batches until there are ``num_samples`` samples. None takes all batches."""
    batches: list[ProbeBatch] = []
    count = 0
    for i, data in enumerate(source):
        batches.append(as_probe_batch(i, data, count))
        count += batches[-1].num_samples
        if num_samples is not None and count >= num_samples:
            break
    check_num_samples(count)
    return batches
