"""`BankPair`: the large blocks of two Gram banks, with permutations of their samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_cka.compare.block_result import BlockResult, null_summary
from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.hsic.packed import PackedGrams, unpack
from lightning_cka.probe.bank import GramBank, open_bank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.bank_selection import bank_of_layers, with_one_probe_set
from lightning_cka.probe.layers import Layers
from lightning_cka.probe.sample_selection import Exclude, SampleSelection
from lightning_cka.runtime.integers import at_least
from lightning_cka.runtime.rng import check_seed


@dataclass(frozen=True)
class Block:
    """The Gram matrices of two models on one batch of n samples."""

    grams: Tensor
    """Doubly centered Gram matrices of the model's layers, ``(L, n, n)`` float64."""
    reference_grams: Tensor
    """Those of the reference's layers, ``(R, n, n)``."""
    orders: Tensor
    """Orders of the samples, ``(P + 1, n)``. The first one leaves them in place; the others are random."""


@dataclass(frozen=True)
class BankPair:
    """Two banks of one probe set, for a measure that needs large blocks."""

    measure: str
    a: GramBank
    b: GramBank
    batches: list[BankBatch]
    """The batches of ``a`` that are large enough."""
    is_self: bool
    """Whether both banks are the same."""

    @classmethod
    def of(
        cls,
        a: GramBank | str | Path,
        b: GramBank | str | Path,
        layers: tuple[Layers, Layers],
        exclude: Exclude,
        measure: str,
        min_samples: int,
        *,
        strict: bool,
    ) -> BankPair:
        """Return the chosen layers and samples of two banks.

        Args:
            a: Bank of the model, or the path of its file.
            b: Bank of the reference, or the path of its file.
            layers: Patterns of the layers of both; None for all of the model, and for those of the model.
            exclude: Numbers of samples to leave out.
            measure: Name of the measure, for messages.
            min_samples: Fewest samples in a block.
            strict: Whether to raise an error if the probe sets differ.

        Raises:
            ValueError: No batch is large enough, the probe sets differ, or a pattern matches no layer.
        """
        at_least(MIN_SAMPLES, "min_samples", min_samples)
        a, b = open_bank(a), open_bank(b)
        is_self = a is b and layers[1] is None
        if a is not b:
            a, b = with_one_probe_set(a, b, strict=strict, stacklevel=4)
        selection = SampleSelection(exclude, None, a.sample_kind)
        names = layers[0] if layers[1] is None else layers[1]
        b = selection.bank(bank_of_layers(b, names, "layers" if layers[1] is None else "reference_layers"))
        a = selection.bank(bank_of_layers(a, layers[0]))
        selection.message(torch.device("cpu"), distributed=False)  # It raises if an excluded sample is unknown.
        return cls(measure, a, b, _large_batches(a, min_samples, measure), is_self)

    def blocks(self, permutations: int, seed: int) -> Iterator[Block]:
        """Yield the blocks of both banks.

        Args:
            permutations: Number of random orders P. Batches of the same sequences have the same orders.
            seed: Seed of the orders.
        """
        permutations, seed = at_least(0, "permutations", permutations), check_seed(seed)
        for batch in self.batches:
            cluster = batch.index if batch.cluster is None else batch.cluster
            orders = np.tile(np.arange(batch.grams.num_samples), (permutations + 1, 1))
            orders[1:] = np.random.default_rng([seed, cluster]).permuted(orders[1:], axis=1)
            grams, reference_grams = (_grams(each.grams) for each in (batch, self.b.batches[batch.index]))
            yield Block(grams, reference_grams, torch.from_numpy(orders))

    def result(self, matrix: Tensor, permuted: Tensor, *, is_distance: bool) -> BlockResult:
        """Return the result.

        Args:
            matrix: Values, ``(L, R)``.
            permuted: Values with the samples in each order, ``(P + 1, L, R)``.
            is_distance: Whether small values are similar.
        """
        return BlockResult(
            matrix,
            self.a.layers,
            self.b.layers,
            self.measure,
            is_distance,
            **null_summary(permuted, is_distance=is_distance),
            num_permutations=len(permuted) - 1,
            block_sizes=tuple(batch.grams.num_samples for batch in self.batches),
            model_name=self.a.title,
            reference_name=self.b.title,
            self_comparison=self.is_self,
        )


def _large_batches(bank: GramBank, min_samples: int, measure: str) -> list[BankBatch]:
    batches = [batch for batch in bank if batch.grams.num_samples >= min_samples]
    if not batches:
        largest = max((batch.grams.num_samples for batch in bank), default=0)
        raise ValueError(
            f"{measure} depends on the number of samples in a Gram matrix and needs at least {min_samples}, but the "
            f"largest of the banks has {largest}. Pass gram_batch_size={min_samples} or more to GramBank.from_model or "
            "CKAMonitor. min_samples= permits fewer"
        )
    return batches


def _grams(packed: PackedGrams) -> Tensor:
    """Return doubly centered Gram matrices, ``(L, n, n)`` in float64; zero for layers without variance."""
    wide = PackedGrams(*(part.double() for part in packed))
    return unpack(wide) * wide.scales.square()[:, None, None]
