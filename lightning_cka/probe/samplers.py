"""Ask a loader's sampler which samples it yields, also where it yields one process's share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, SubsetRandomSampler
from torch.utils.data.distributed import DistributedSampler

from lightning_cka.probe.sampler_copy import generators_of, isolated_copy
from lightning_cka.runtime.devices import cpu_by_default
from lightning_cka.runtime.rng import isolated_rng

_WHOLE = {SequentialSampler: "data_source", RandomSampler: "data_source", DistributedSampler: "dataset"}
"""torch's samplers of all indices of a sequence, and the attribute that holds this sequence."""

_INNER = ("sampler", "_sampler", "base_sampler")
_MISSING = object()

View = Callable[[], Any]
"""Makes a sampler. A share of the samples is asked for once for each process."""


def available_samples(loader: DataLoader[Any], seed: int, num_samples: int | None) -> Sequence[Any]:
    """Return the distinct samples that a loader's sampler or batch sampler yields, on all processes together.

    Samples are whatever the dataset is indexed with. Indices are sorted. The sampler is read once, with random numbers
    of this package, on a copy, so that it goes on as before.

    Args:
        loader: A loader that makes batches of the samples of a map-style dataset.
        seed: Seed of the random numbers.
        num_samples: See `samples_in_order`.
    """
    batch_sampler = loader.batch_sampler
    is_plain = type(batch_sampler) is BatchSampler
    sampler = batch_sampler.sampler if is_plain else batch_sampler  # type: ignore[union-attr]
    views = _views(sampler, loader.dataset) if is_plain else _batched_views(sampler, loader.dataset)
    only = views[0]() if len(views) == 1 else None
    if type(only) in _WHOLE:
        return range(len(getattr(only, _WHOLE[type(only)])))
    if type(only) is SubsetRandomSampler:
        return _distinct(only.indices)
    drawn = _drawn(views, loader, seed, num_samples, batched=not is_plain)
    return in_one_order(chain.from_iterable(drawn) if not is_plain else drawn)


def in_one_order(samples: Iterable[Any]) -> Sequence[Any]:
    """Return each sample once. Samples that can be sorted are, so that a shuffling sampler gives the same ones."""
    distinct = _distinct(samples)
    try:
        return sorted(distinct)
    except TypeError:
        return distinct


def samples_in_order(loader: DataLoader[Any], seed: int, num_samples: int | None) -> list[Any]:
    """Return what the sampler of a loader of whole batches yields, in order, on all processes together.

    Args:
        loader: A loader whose dataset makes the batches.
        seed: Seed of the random numbers.
        num_samples: Number of samples after which an endless sampler is cut off if the dataset has no length.
    """
    return _drawn(_views(loader.sampler, loader.dataset), loader, seed, num_samples, batched=False)


def batches_in_order(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield what a copy of a loader's batch sampler yields; of an endless one, as many samples as the dataset has."""
    sampler = loader.batch_sampler
    # A sampler that can be read only once belongs to a loader that can be read only once.
    with suppress(ValueError):
        sampler = isolated_copy(sampler, loader.dataset)
    length = _length(sampler)
    bound = length if length is not None else _length(loader.dataset)
    return iter(sampler) if bound is None else _bounded(sampler, bound, is_counted=length is None)  # type: ignore[arg-type]


def is_share(sampler: Any) -> bool:
    """Whether a sampler yields one process's share of the samples, as far as its attributes tell."""
    return all(isinstance(getattr(sampler, name, None), int) for name in ("rank", "num_replicas"))


def has_distributed_sampler(loader: Any) -> bool:
    """Whether the loader already splits its samples over processes."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    return any(
        map(is_share, (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)))
    )


def plain_index(index: Any) -> Any:
    """Return a dataset index as a Python number if it is a tensor or a NumPy scalar."""
    return index.item() if isinstance(index, np.generic) or (isinstance(index, Tensor) and not index.ndim) else index


def _views(sampler: Any, dataset: Any) -> list[View]:
    """Return samplers that together yield what the samplers of all processes yield."""
    if type(sampler) in _WHOLE:
        return [lambda: sampler]
    if not is_share(sampler):
        return [partial(isolated_copy, sampler, dataset)]
    inner = _inner(sampler)
    if inner is not None:
        return _views(inner, dataset)
    return [partial(_of_rank, sampler, dataset, rank) for rank in range(sampler.num_replicas)]


def _batched_views(sampler: Any, dataset: Any) -> list[View]:
    """Return batch samplers that together yield the batches of all processes."""
    if is_share(sampler):
        return [partial(_of_rank, sampler, dataset, rank) for rank in range(sampler.num_replicas)]
    name = next((name for name in _INNER if is_share(getattr(sampler, name, None))), None)
    if name is None:
        return [partial(isolated_copy, sampler, dataset)]
    return [partial(_with, sampler, dataset, name, view) for view in _views(getattr(sampler, name), dataset)]


def _inner(sampler: Any) -> Any:
    """Return the sampler that a distributed wrapper deals out; None if there is none."""
    owners = (sampler, getattr(sampler, "dataset", None))
    found = (getattr(owner, name, None) for owner in owners for name in _INNER)
    return next((inner for inner in found if hasattr(inner, "__iter__")), None)


def _of_rank(sampler: Any, dataset: Any, rank: int) -> Any:
    copied = isolated_copy(sampler, dataset)
    copied.rank = rank
    return copied


def _with(sampler: Any, dataset: Any, name: str, view: View) -> Any:
    copied = isolated_copy(sampler, dataset)
    setattr(copied, name, view())
    return copied


def _drawn(
    views: list[View], loader: DataLoader[Any], seed: int, num_samples: int | None, *, batched: bool
) -> list[Any]:
    """Read each sampler once, to its end or to the bound of an endless one, and put the shares in turn."""
    bound = max(_length(loader.dataset) or 0, num_samples or 0)
    shares: list[list[Any]] = []
    for view in views:
        with isolated_rng(seed), cpu_by_default(generators_of(loader)):
            sampler = view()
            length = _length(sampler)
            if length is None and not bound:
                raise ValueError(
                    f"num_samples=None needs a dataset or a sampler with a length, but neither "
                    f"{type(loader.dataset).__name__} nor {type(sampler).__name__} has one; pass the number of samples"
                )
            is_counted = batched and length is None
            shares.append(list(_bounded(sampler, bound if length is None else length, is_counted=is_counted)))
    return [sample for turn in zip_longest(*shares, fillvalue=_MISSING) for sample in turn if sample is not _MISSING]


def _bounded(sampler: Any, bound: int, *, is_counted: bool) -> Iterator[Any]:
    """Yield at most ``bound`` items of a sampler, or, if ``is_counted``, batches of ``bound`` samples."""
    count = 0
    for item in sampler:
        if count >= bound:
            rank_zero_info(
                f"CKA draws the probe set from the first {bound} entries of {type(sampler).__name__}, which yields more"
            )
            return
        if is_counted:
            item = list(item)
        count += len(item) if is_counted else 1
        yield item


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except (TypeError, NotImplementedError, AttributeError, OverflowError, ValueError):
        return None


def _distinct(samples: Any) -> list[Any]:
    """Return each sample once, in order of its first appearance."""
    plain = list(map(plain_index, samples))
    try:
        return list(dict.fromkeys(plain))
    except TypeError:  # Lists and dictionaries have no hash.
        return list({repr(sample): sample for sample in plain}.values())
