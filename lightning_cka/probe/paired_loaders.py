"""Two loaders whose samples belong together: sample i of one to sample i of the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.dataset_probe import DatasetProbe
from lightning_cka.probe.given_batches import probe_set_of_loader
from lightning_cka.probe.probe_set import ProbeSet
from lightning_cka.probe.show_probe_set import Consumer

_BOTH = "Sample i of dataloader must belong to sample i of reference_dataloader"


def paired_probe_set(
    probe: ProbeSet, dataloader: Any, reference_dataloader: Any, *, gram_batch_size: int | None
) -> ProbeSet:
    """Return the probe set of a second loader, whose samples are in the same order as those of the first.

    Of two map-style datasets, samples of the same index belong together: those of the second are shown in the order of
    the first, however it is shuffled. Other loaders must not shuffle.

    Args:
        probe: The probe set of the first loader.
        dataloader: The first loader.
        reference_dataloader: The second loader. None, or the first loader again: ``probe`` is returned.
        gram_batch_size: See `probe_set_of_loader`.

    Raises:
        ValueError: The numbers or sizes of batches differ, as far as they are known; or the loaders have samples of
            other indices; or one of them shuffles, and their indices are unknown.
    """
    if reference_dataloader is None or reference_dataloader is dataloader:
        return probe
    other = probe_set_of_loader(reference_dataloader, seed=probe.seed, gram_batch_size=gram_batch_size)
    if isinstance(probe, DatasetProbe) and isinstance(other, DatasetProbe):
        return _in_order_of(probe, other)
    sides = (("dataloader", dataloader, probe), ("reference_dataloader", reference_dataloader, other))
    for name, loader, each in sides:
        if _may_shuffle(loader, each):
            raise ValueError(
                f"{name} may shuffle, but only DataLoaders over two map-style datasets can be shuffled alike. {_BOTH}: "
                "pass two such DataLoaders, or two loaders that do not shuffle"
            )
    if None not in (probe.num_blocks, other.num_blocks) and probe.num_blocks != other.num_blocks:
        raise ValueError(
            f"dataloader has {probe.num_blocks} batches, and reference_dataloader has {other.num_blocks}. {_BOTH}"
        )
    return other


def _in_order_of(probe: DatasetProbe, other: DatasetProbe) -> ProbeSet:
    """Return the samples of ``other`` in the order of ``probe``."""
    own, others = (Counter(chain.from_iterable(each.indices)) for each in (probe, other))
    if own.total() != others.total():
        raise ValueError(
            f"dataloader has {own.total()} samples, and reference_dataloader has {others.total()}. {_BOTH}"
        )
    if own != others:
        index = min((own - others) | (others - own))
        raise ValueError(
            f"dataloader and reference_dataloader have samples of other indices in their datasets, such as {index}. "
            f"{_BOTH}: use the same sampler without drop_last=True, or make datasets of these samples with "
            "torch.utils.data.Subset"
        )
    sizes, other_sizes = ([len(block) for block in each.indices] for each in (probe, other))
    if sizes != other_sizes:
        raise ValueError(
            f"batches have {sizes[0]} samples in dataloader and {other_sizes[0]} in reference_dataloader. Use one "
            "batch size, or gram_batch_size=, which joins batches of both"
        )
    return other.with_blocks(list(zip(probe.indices, other.parts, strict=True)))


def _may_shuffle(loader: Any, probe: ProbeSet) -> bool:
    """Whether the order of a loader's samples may be another one than that of its dataset, as far as is known."""
    if isinstance(probe, DatasetProbe):
        samples = list(chain.from_iterable(probe.indices))
        return samples != list(range(len(samples)))
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return False
    sampler = loader.sampler if loader.batch_sampler is None else getattr(loader.batch_sampler, "sampler", None)
    return not isinstance(sampler, SequentialSampler)


@contextmanager
def paired_batches(bank: GramBank | None, consume: Consumer, *, has_two_loaders: bool) -> Iterator[Consumer]:
    """Pass on the batches of a model, as if they had the inputs of the batches that its reference was shown.

    Args:
        bank: The reference's bank; None: the model is compared with itself.
        consume: Gets the batches.
        has_two_loaders: Whether the reference was shown other batches. Otherwise batches are passed on as they are.

    Yields:
        What takes the batches.

    Raises:
        ValueError: The reference was shown no such batch, or one of other samples, or further batches.
    """
    if bank is None or not has_two_loaders:
        yield consume
        return
    seen: set[int] = set()

    def add(batch: BankBatch) -> None:
        fingerprint = _fingerprint_of_pair(batch, bank.batches.get(batch.index))
        seen.add(batch.index)
        consume(replace(batch, fingerprint=fingerprint))

    yield add
    if more := len(bank.batches.keys() - seen):
        raise ValueError(
            f"dataloader has {len(seen)} batches, and reference_dataloader has {len(seen) + more}. {_BOTH}"
        )


def _fingerprint_of_pair(batch: BankBatch, other: BankBatch | None) -> str:
    """Return the hash of the inputs of the reference's batch, which must have the same samples."""
    own, others = len(batch.samples), 0 if other is None else len(other.samples)
    if other is None or own != others:
        raise ValueError(
            f"batch {batch.index} has {own} samples in dataloader and {others} in reference_dataloader. {_BOTH}"
        )
    if batch.samples != other.samples:
        raise ValueError(
            f"feature_fn='tokens' takes other tokens from batch {batch.index} of reference_dataloader, since its masks "
            "differ from those of dataloader. Use 'mean', 'cls' or 'last', which give one row per sample"
        )
    return other.fingerprint
