"""`ComparedBanks`: the banks behind a result, for a permutation test of its values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_cka.compare.bank_pair import BankPair
from lightning_cka.compare.pairing import Pair
from lightning_cka.compare.permutation_test import PermutationTest, sample_orders
from lightning_cka.hsic.entry_positions import permuted_products
from lightning_cka.hsic.measure import CKA, Measure, with_parameters
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.products import Vectors
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.layers import Layers
from lightning_cka.probe.sample_selection import SampleSelection
from lightning_cka.runtime.integers import at_least

_TOLERANCE = 1e-6
"""Largest difference from the result's values. Both are computed from the same numbers in float64."""


@dataclass(frozen=True, eq=False, repr=False)
class ComparedBanks:
    """The banks that `compare_banks` compared, with its arguments.

    These are references to the user's banks, or the paths of their files, which are read again when they are needed.
    Pickling an object gives None, so that no file has the banks.
    """

    a: GramBank | str | Path
    b: GramBank | str | Path
    layers: tuple[Layers, Layers]
    selection: SampleSelection
    measure: Measure
    strict: bool
    pair: Pair = "name"

    def __repr__(self) -> str:
        return f"ComparedBanks({self.a!r}, {self.b!r})"

    def __deepcopy__(self, _memo: dict[int, Any]) -> ComparedBanks:
        """Return the same object: a copy would refer to the same banks."""
        return self

    def __copy__(self) -> ComparedBanks:
        return self

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Return what makes None, instead of the banks."""
        return type(None), ()

    def null(self, matrix: Tensor, permutations: int, seed: int) -> PermutationTest:
        """Return the permutation test of the measure's values.

        Args:
            matrix: The values, ``(L, R)``.
            permutations: Number of permutations P.
            seed: Seed of the permutations.

        Raises:
            ValueError: The banks have other values now, or a number is out of range.
            TypeError: A number is not an integer.
            FileNotFoundError: The file of a bank does not exist any more.
        """
        at_least(0, "permutations", permutations)
        pair = BankPair.of(self.a, self.b, self.layers, strict=self.strict, pair=self.pair, stacklevel=4)
        pair = pair.selected(self.selection)
        values = self._permuted_values(pair, permutations, seed)
        if matrix.shape != values.shape[1:] or not torch.allclose(
            values[0], matrix, rtol=0, atol=_TOLERANCE, equal_nan=True
        ):
            raise ValueError("the banks have changed since they were compared; call compare_banks again")
        return PermutationTest.of(pair, pair.batches(), self._name(), matrix, values)

    def _permuted_values(self, pair: BankPair, permutations: int, seed: int) -> Tensor:
        """Return the values with the samples of the model in each order, ``(P + 1, L, R)``.

        Norms of vectors do not change.
        """
        medians, reference_medians = _medians(self.measure, pair.a), _medians(self.measure, pair.b)
        num_layers, num_references = len(pair.a.layers), len(pair.b.layers)
        none = torch.zeros(0, dtype=torch.float64, device="cpu")
        products = none.new_zeros(permutations + 1, num_layers, num_references)
        norms, reference_norms = none.new_zeros(num_layers), none.new_zeros(num_references)
        for batch, reference_grams in pair.batches():
            orders = sample_orders(batch, permutations, seed)
            own = _vectors(self.measure, batch.grams, medians)
            others = own if pair.is_self else _vectors(self.measure, reference_grams, reference_medians)
            products += permuted_products(own, others, self.measure.positions(own.num_samples), orders)
            _, of_layers, of_references = own.products(others)
            norms, reference_norms = norms + of_layers, reference_norms + of_references
        return products / (norms[:, None] * reference_norms).sqrt()

    def _name(self) -> str:
        measure = self.measure
        if not isinstance(measure, CKA):
            return measure.name
        kernel = [] if measure.kernel == "linear" else [measure.kernel]
        return with_parameters(measure.key, *kernel, *([] if measure.unbiased else ["biased"]))


def _medians(measure: Measure, bank: GramBank) -> Tensor | None:
    """Return the medians that fix the bandwidths of kernels, which do not depend on the order of samples."""
    if not measure.needs_median:
        return None
    return bank.bandwidths(torch.device("cpu"), distributed=False).medians


def _vectors(measure: Measure, grams: PackedGrams, medians: Tensor | None) -> Vectors:
    return measure.vectors(measure.grams(grams, medians))
