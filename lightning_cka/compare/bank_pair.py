"""`BankPair`: two Gram banks of one probe set, with the layers that are compared."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from lightning_cka.compare.pairing import Pair, Pairing, check_pair, pair_layers
from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.probe.bank import GramBank, open_bank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.bank_selection import bank_of_layers, with_one_probe_set
from lightning_cka.probe.layers import Layers
from lightning_cka.probe.sample_selection import SampleSelection
from lightning_cka.probe.token_clusters import TokenClusters
from lightning_cka.runtime.integers import at_least


class PairedBatch(NamedTuple):
    """The Gram matrices of two models on one batch."""

    batch: BankBatch
    """The model's batch. Batches of tokens of the same sequences have the same ``cluster``."""
    reference_grams: PackedGrams
    """The reference's Gram matrices; those of the model again if it is compared with itself."""


@dataclass(frozen=True)
class BankPair:
    """Two banks of one probe set."""

    a: GramBank
    b: GramBank
    is_self: bool
    """Whether the model is compared with itself. Then both banks are the same."""
    pairing: Pairing
    """Which layers are paired."""

    @classmethod
    def of(
        cls,
        a: GramBank | str | Path,
        b: GramBank | str | Path,
        layers: tuple[Layers, Layers],
        *,
        strict: bool,
        pair: Pair = "name",
        stacklevel: int = 3,
    ) -> BankPair:
        """Return the chosen layers of two banks.

        Args:
            a: Bank of the model, or the path of its file.
            b: Bank of the reference, or the path of its file. ``a`` again compares the model with itself.
            layers: Patterns of the layers of both; None for all of the model, and for those of the model.
            strict: Whether to raise an error if the probe sets differ; see `with_one_probe_set`.
            pair: How to pair layers; see `pair_layers`. A model's layers are paired with themselves.
            stacklevel: Place of a warning, as in `warnings.warn`. 3: the caller of the function that calls this one.

        Raises:
            ValueError: The probe sets differ, a pattern matches no layer, or the layers cannot be paired.
            TypeError: ``pair`` has a wrong type.
        """
        check_pair(pair)
        a, b = open_bank(a), open_bank(b)
        own, others = layers
        is_self = a is b and others is None
        if a is not b:
            a, b = with_one_probe_set(a, b, strict=strict, stacklevel=stacklevel + 1)
        if is_self:
            chosen = bank_of_layers(a, own)
            return cls(chosen, chosen, is_self, Pairing.of_same_names(chosen.layers, chosen.layers))
        names = own if others is None else others
        argument = "layers" if others is None else "reference_layers"
        a, b = bank_of_layers(a, own), bank_of_layers(b, names, argument)
        return cls(a, b, is_self, pair_layers(a.layers, b.layers, pair))

    def named(self, model_name: str | None, reference_name: str | None) -> BankPair:
        """Return the pair with other names of the two models. None keeps a name."""
        a, b = copy(self.a), copy(self.b)
        a.model_name, b.model_name = model_name or a.model_name, reference_name or b.model_name
        return replace(self, a=a, b=b)

    def selected(self, selection: SampleSelection) -> BankPair:
        """Return the chosen samples of both banks, in their groups.

        Raises:
            ValueError: An excluded sample is unknown, or a sample has no label.
        """
        selection = selection.of_kind(self.a.sample_kind)
        a = selection.bank(self.a)
        b = a if self.is_self else selection.bank(self.b)
        selection.message(torch.device("cpu"), distributed=False)  # It raises if an excluded sample is unknown.
        return replace(self, a=a, b=b)

    def batches(self) -> list[PairedBatch]:
        """Return the batches, in order."""
        clusters = TokenClusters(self.a.sample_kind)
        return [PairedBatch(clusters.mark(batch), self.b.batches[batch.index].grams) for batch in self.a]

    def large_batches(self, min_samples: int, measure: str) -> list[PairedBatch]:
        """Return the batches that have enough samples, in order.

        Args:
            min_samples: Fewest samples in a batch.
            measure: Name of the measure that needs so many, for messages.

        Raises:
            ValueError: No batch is large enough, or ``min_samples`` is below 4.
            TypeError: ``min_samples`` is not an integer.
        """
        at_least(MIN_SAMPLES, "min_samples", min_samples)
        found = [each for each in self.batches() if each.batch.grams.num_samples >= min_samples]
        if not found:
            largest = max((batch.grams.num_samples for batch in self.a), default=0)
            raise ValueError(
                f"{measure} depends on the number of samples in a Gram matrix and needs at least {min_samples}, but "
                f"the largest of the banks has {largest}. Pass gram_batch_size={min_samples} or more to "
                "GramBank.from_model or CKAMonitor. min_samples= permits fewer"
            )
        return found
