"""Take the first samples of a stream, in order, as the probe set."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.probe.batching import (
    Sizes,
    check_num_samples,
    choose_sizes,
    earlier_sizes,
    join_sizes,
    sizes_for_memory,
)
from lightning_cka.probe.probe_set import ProbeBatch
from lightning_cka.probe.sample_places import SamplePlaces, candidate_places
from lightning_cka.probe.samplers import samples_in_order
from lightning_cka.probe.stream_probe import StreamProbe
from lightning_cka.probe.worker_options import CountedCollate, iterate, worker_options
from lightning_cka.runtime.generator_states import find_generators, kept_generators
from lightning_cka.runtime.rng import isolated_rng


def first_batches(
    loader: Any, num_samples: int | None, batch_size: int | None, seed: int, gram_batch_size: int | None = None
) -> StreamProbe:
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

    def read(places: SamplePlaces | None) -> list[Any]:
        with isolated_rng(seed), kept_generators(find_generators(getattr(loader, "dataset", None))):
            return _until_num_samples(_whole_batches(loader, seed, num_samples), num_samples, places)

    return StreamProbe(read(None), seed, gram_batch_size=gram_batch_size, read=read)


def first_samples(
    loader: DataLoader[Any],
    num_samples: int | None,
    batch_size: int | None,
    seed: int,
    gram_batch_size: int | None = None,
) -> StreamProbe:
    """Take the first samples of an iterable dataset, and collate them into batches, which are joined to Gram blocks.

    Raises:
        ValueError: ``num_samples`` is None for a dataset without a length, or a block or the probe set has fewer than 4
            samples.
    """
    _warn_not_shuffled(_source_name(loader))
    _check_finite(loader, num_samples)
    choose = partial(choose_sizes, loader=loader, batch_size=batch_size, gram_batch_size=gram_batch_size)
    earlier = partial(earlier_sizes, loader=loader, batch_size=batch_size) if gram_batch_size is None else None
    return _first_samples(loader, num_samples, seed, choose, earlier)


def _first_samples(
    loader: DataLoader[Any],
    num_samples: int | None,
    seed: int,
    choose: Callable[[int], Sizes],
    earlier: Callable[[int], Sizes] | None = None,
) -> StreamProbe:
    with isolated_rng(seed), kept_generators(find_generators(loader.dataset)):
        read = _read_in_workers if loader.num_workers else _read_here
        sizes, counted = read(loader, num_samples, choose, seed)
    batches: list[ProbeBatch] = []
    start = 0
    for count, data in counted:
        batches.append(ProbeBatch(len(batches), data, count, tuple(range(start, start + count))))
        start += count
    last = join_sizes((count for count, _ in counted), sizes.block)[-1]
    if sum(last) < MIN_SAMPLES:
        del batches[-len(last) :]
    probe = StreamProbe(batches, seed, gram_batch_size=sizes.block if sizes.forward < sizes.block else None)
    if earlier is not None:
        probe.earlier = lambda: _first_samples(loader, num_samples, seed, earlier)
    if earlier is not None and sizes.forward < sizes.block:

        def smaller(sample_bytes: int | None) -> StreamProbe:
            fixed = sizes_for_memory(sizes, start, sample_bytes)
            return _first_samples(loader, num_samples, seed, lambda _: fixed)

        probe.smaller = smaller
    return probe


_Counted = tuple[Sizes, list[tuple[int, Any]]]
"""The sizes of batches and blocks, and batches with the numbers of their samples."""


def _read_here(
    loader: DataLoader[Any], num_samples: int | None, choose: Callable[[int], Sizes], _seed: int
) -> _Counted:
    """Read a copy of the stream in this process, and return counted batches."""
    samples = list(islice(iter(_copy_of_stream(cast(IterableDataset[Any], loader.dataset))), num_samples))
    sizes = choose(len(samples))
    blocks = [samples[start : start + sizes.block] for start in range(0, len(samples), sizes.block)]
    batches = [
        block[start : start + sizes.forward] for block in blocks for start in range(0, len(block), sizes.forward)
    ]
    return sizes, [(len(batch), loader.collate_fn(batch)) for batch in batches]


def _read_in_workers(
    loader: DataLoader[Any], num_samples: int | None, choose: Callable[[int], Sizes], seed: int
) -> _Counted:
    """Read the stream in workers, which collate, and return counted batches. Their order is that of the loader."""
    expected = num_samples if num_samples is not None else len(loader.dataset)  # type: ignore[arg-type]
    sizes = choose(expected)
    batches = _counted_batches(loader, sizes.forward, num_samples, seed)
    found = sum(count for count, _ in batches)
    is_shorter = found + sizes.forward <= expected  # The stream is shorter than expected.
    smaller = choose(found) if is_shorter else sizes
    if smaller.forward < sizes.forward:
        batches = _counted_batches(loader, smaller.forward, num_samples, seed)
    return smaller, batches


def _counted_batches(loader: DataLoader[Any], size: int, num_samples: int | None, seed: int) -> list[tuple[int, Any]]:
    """Read batches of a stream in workers, as many as fit into ``num_samples``."""
    workers = DataLoader(
        loader.dataset,
        batch_size=size,
        collate_fn=CountedCollate(loader.collate_fn),
        generator=torch.Generator("cpu").manual_seed(seed),
        **worker_options(loader),
    )
    batches: list[tuple[int, Any]] = []
    count = 0
    for batch in iterate(workers):
        batches.append(copy.deepcopy(batch))  # A copy is not in shared memory, of which there is little.
        count += batch[0]
        if num_samples is not None and count + size > num_samples:
            break
    return batches


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


def _whole_batches(loader: Iterable[Any], seed: int, num_samples: int | None) -> Iterable[Any]:
    """Iterate over a loader whose dataset or sampler makes the batches."""
    if not isinstance(loader, DataLoader):
        return loader
    is_stream = isinstance(loader.dataset, IterableDataset)
    keys = None if is_stream else samples_in_order(loader, seed, num_samples)
    if not loader.num_workers:
        data = (
            _copy_of_stream(cast(IterableDataset[Any], loader.dataset))
            if is_stream
            else (loader.dataset[key] for key in keys or ())
        )
        return map(loader.collate_fn, data)
    workers = DataLoader(
        loader.dataset,
        batch_size=None,
        sampler=keys,
        collate_fn=loader.collate_fn,
        generator=torch.Generator("cpu").manual_seed(seed),
        **worker_options(loader),
    )
    return map(copy.deepcopy, iterate(workers))  # A copy is not in shared memory, of which there is little.


def _until_num_samples(source: Iterable[Any], num_samples: int | None, places: SamplePlaces | None) -> list[Any]:
    """Take batches until there are ``num_samples`` samples. None takes all batches."""
    batches: list[Any] = []
    count = 0
    for data in source:
        places = places or candidate_places(data)[0]
        batches.append(data)
        count += places.num_samples(data)
        if num_samples is not None and count >= num_samples:
            break
    check_num_samples(count)
    return batches
