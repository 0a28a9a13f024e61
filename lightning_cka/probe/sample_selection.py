"""`SampleSelection`: leave samples out of banks, and split their batches into groups of samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import index
from typing import Any

import torch

from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.hsic.subset import select_samples
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.sample_labels import Labels, copied_labels, label_of
from lightning_cka.probe.tokens import kind_of_sequences, sequences_of
from lightning_cka.runtime.collectives import all_reduce_sum
from lightning_cka.runtime.files import digest
from lightning_cka.runtime.text import shortened

Exclude = Iterable[int] | None
Groups = Labels | None


class SampleSelection:
    """Which samples of a probe set are compared, and in which groups.

    Gram matrices of a part of the samples follow from those of all samples, by centering them again. Each group of a
    batch becomes a batch of its own, whose features are centered within the group.

    Args:
        exclude: Numbers of the samples to leave out.
        groups: The label of each sample: a mapping from sample numbers, or a sequence indexed by them. None: one group.
        sample_kind: What the sample numbers are. For those of tokens, ``exclude`` and ``groups`` have the numbers of
            their sequences.

    Raises:
        TypeError: A number is not an integer, or ``groups`` is neither a mapping nor a sequence.
    """

    def __init__(self, exclude: Exclude, groups: Groups, sample_kind: str = "sample") -> None:
        self._excluded = _integers(exclude)
        self._groups = None if groups is None else copied_labels(groups, "groups")
        self._sample_kind = sample_kind
        self._kind = kind_of_sequences(sample_kind)
        self._num_groups = self._number_of_groups()
        self._places: dict[Any, int] = {}
        self._found: set[int] = set()
        self._left_out: set[int] = set()

    @property
    def is_whole(self) -> bool:
        """Whether all samples are compared as one group."""
        return not self._excluded and self._groups is None

    @property
    def excluded(self) -> list[int]:
        """Return the numbers of the samples to leave out."""
        return sorted(self._excluded)

    @property
    def description(self) -> str:
        """Return a text that is equal for equal selections; empty if all samples are compared as one group."""
        if self.is_whole:
            return ""
        return digest(repr((self.excluded, self._groups)).encode())

    def of_kind(self, sample_kind: str) -> SampleSelection:
        """Return the selection for one comparison, whose sample numbers are of this kind."""
        return SampleSelection(self._excluded, self._groups, sample_kind)

    def check(self, samples: Iterable[int]) -> None:
        """Check that all excluded samples are among those of the probe set, and that all others have a label.

        Raises:
            ValueError: They are not.
        """
        known = set(samples)
        self._raise_if_missing(sorted(self._excluded - known))
        for sample in sorted(known - self._excluded):
            self._label(sample)

    def parts(self, batch: BankBatch) -> Iterator[BankBatch]:
        """Yield a batch for each group of the samples that are not excluded. Groups of fewer than 4 are left out.

        Raises:
            ValueError: A sample has no label.
        """
        if self.is_whole:
            yield batch
            return
        for label, own in self._places_by_label(batch).items():
            samples = tuple(batch.samples[place] for place in own)
            if len(own) < MIN_SAMPLES:
                self._left_out.update(samples)
                continue
            yield replace(
                batch,
                index=batch.index * self._num_groups + self._place(label),
                grams=select_samples(batch.grams, own),
                fingerprint=f"{batch.fingerprint} {digest(repr(samples).encode())}",
                samples=samples,
                bad_inputs=tuple(sample for sample in batch.bad_inputs if sample in samples),
                input_hashes=tuple(batch.input_hashes[place] for place in own) if batch.input_hashes else (),
            )

    def places(self, batch: BankBatch) -> list[int]:
        """Return the places in a batch of the samples that are not excluded."""
        return sorted(place for own in self._places_by_label(batch).values() for place in own)

    def _places_by_label(self, batch: BankBatch) -> dict[Any, list[int]]:
        """Return the places of the samples that are not excluded, by the label of their group."""
        places = defaultdict(list)
        for place, sample in enumerate(sequences_of(batch.samples, self._sample_kind) or batch.samples):
            if sample in self._excluded:
                self._found.add(sample)
            else:
                places[self._label(sample)].append(place)
        return places

    def bank(self, bank: GramBank) -> GramBank:
        """Return the bank of the selected samples, in their groups."""
        if self.is_whole:
            return bank
        part = bank.empty()
        for batch in bank:
            for each in self.parts(batch):
                part.add(each)
        return part

    def message(self, device: torch.device, *, distributed: bool) -> str:
        """Return a warning about samples that are left out because their groups are too small; empty if there are none.

        Args:
            device: The device that the processes communicate through.
            distributed: Whether several processes share the batches. Then all of them must call this.

        Raises:
            ValueError: An excluded sample was in no batch of any process. All processes raise.
        """
        if self.is_whole:
            return ""
        ordered = self.excluded
        own = [float(sample in self._found) for sample in ordered]
        counts = torch.tensor([*own, float(len(self._left_out))], dtype=torch.float64, device=device)
        *found, left_out = all_reduce_sum(counts, distributed=distributed).tolist()
        self._raise_if_missing([sample for sample, count in zip(ordered, found, strict=True) if not count])
        if not left_out:
            return ""
        return (
            f"groups: {left_out:.0f} samples are left out, because their group has fewer than {MIN_SAMPLES} samples in "
            "their batch. Use larger batches or fewer groups"
        )

    def _raise_if_missing(self, samples: Sequence[int]) -> None:
        if samples:
            raise ValueError(
                f"exclude: {self._kind} {shortened(list(map(str, samples)))} is not in the probe set. The flags "
                "of a result name the numbers of its samples"
            )

    def _label(self, sample: int) -> Any:
        return None if self._groups is None else label_of(self._groups, sample, self._kind, "groups")

    def _number_of_groups(self) -> int:
        if self._groups is None:
            return 1
        return len(set(self._groups.values() if isinstance(self._groups, Mapping) else self._groups))

    def _place(self, label: Any) -> int:
        """Return the place of a label. It must be the same for the model and for the reference."""
        return self._places.setdefault(label, len(self._places))


def _integers(exclude: Exclude) -> frozenset[int]:
    if exclude is None:
        return frozenset()
    if isinstance(exclude, str | bytes) or not isinstance(exclude, Iterable):
        raise TypeError(f"exclude must be sample numbers, such as [17, 203], but is {exclude!r}")
    try:
        return frozenset(index(sample) for sample in exclude)
    except TypeError as error:
        raise TypeError(f"exclude must be sample numbers, such as [17, 203]: {error}") from error
