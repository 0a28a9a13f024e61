"""`PermutationTest`: a measure for all pairs of layers, with its values for permuted samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cka.compare.bank_pair import BankPair, PairedBatch
from lightning_cka.compare.layer_pairs import LayerPairs
from lightning_cka.compare.pairing import Pairing
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.runtime.integers import at_least
from lightning_cka.runtime.rng import check_seed

NULL_LEVEL = 0.95
"""Share of the permutations that are less similar than `PermutationTest.null_quantile`."""

_DECIMALS = 9
"""Values with equal decimals are ties. Many values of mutual kNN, which counts, differ by rounding errors alone."""


@dataclass(frozen=True, eq=False, repr=False)
class PermutationTest(LayerPairs):
    """A measure of all L layers of a model and all R layers of a reference, with a permutation test.

    `CKAResult.null`, `procrustes` and `predictivity` make these objects. The null distribution are the values after the
    samples of one model are permuted within each block: what the measure is for layers of this kind that have nothing
    in common. A block is a batch of the banks, or a group of samples in it.

    Attributes:
        matrix: Values, ``(L, R)`` float64. Rows are the model's layers, columns the reference's. ``nan`` for layers
            without variance or with values that are not finite.
        layers: Names of the rows.
        reference_layers: Names of the columns.
        measure: Name of the measure, such as "cka", "cka(rbf)", "procrustes" or "predictivity".
        is_distance: Whether a small value means that layers are similar.
        null_mean: Means over the permutations, ``(L, R)``; ``nan`` without permutations.
        null_quantile: Values that 95 % of the permutations do not reach, ``(L, R)``: they are less similar. For a
            distance, this is the 5 % quantile.
        p_value: Share of permutations that are at least as similar as the layers are, ``(L, R)``. The samples as they
            are count as one more, so that it is at least 1 / (permutations + 1). There is no correction for the number
            of pairs.
        corrected_p_value: The same for the whole matrix, ``(L, R)``: the share of permutations in which any pair of
            layers is as far above its own null mean, in its own standard deviations. With a probability of 95 %, no
            pair of unrelated layers has a value of at most 0.05.
        num_permutations: Number of permutations.
        block_sizes: Number of samples in each block.
        model_name: Name of the model.
        reference_name: Name of the reference.
        self_comparison: Whether the model is compared with itself. One side is permuted: on the diagonal, a layer is
            compared with its own permuted samples.
        pairing: The reference's layer of each layer, for `mean` and `same_named`. None: layers of the same names.
    """

    matrix: Tensor
    layers: tuple[str, ...]
    reference_layers: tuple[str, ...]
    measure: str
    is_distance: bool
    null_mean: Tensor
    null_quantile: Tensor
    p_value: Tensor
    corrected_p_value: Tensor
    num_permutations: int
    block_sizes: tuple[int, ...]
    model_name: str = "model"
    reference_name: str = "reference"
    self_comparison: bool = False
    pairing: Pairing | None = None

    def __repr__(self) -> str:
        return (
            f"PermutationTest({self.measure} of {self.model_name} and {self.reference_name}: {len(self.layers)} x "
            f"{len(self.reference_layers)} layers, {self.num_samples} samples in {len(self.block_sizes)} blocks, "
            f"{self.mean_name} {self.summary():.3f}, {self.num_permutations} permutations)"
        )

    @classmethod
    def of(
        cls,
        pair: BankPair,
        batches: Sequence[PairedBatch],
        measure: str,
        matrix: Tensor,
        permuted: Tensor,
        *,
        is_distance: bool = False,
    ) -> PermutationTest:
        """Return the result of two banks.

        Args:
            pair: The banks.
            batches: The batches that were compared.
            measure: Name of the measure.
            matrix: Values, ``(L, R)``.
            permuted: Values with the samples in each order, ``(P + 1, L, R)``. The first ones are those of the samples
                as they are.
            is_distance: Whether small values are similar.
        """
        return cls(
            matrix,
            pair.a.layers,
            pair.b.layers,
            measure,
            is_distance,
            **null_summary(permuted, is_distance=is_distance),
            num_permutations=len(permuted) - 1,
            block_sizes=tuple(each.batch.grams.num_samples for each in batches),
            model_name=pair.a.title,
            reference_name=pair.b.title,
            self_comparison=pair.is_self,
            pairing=pair.pairing,
        )

    @property
    def num_samples(self) -> int:
        """Return the number of samples behind each value."""
        return sum(self.block_sizes)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return the values in long format: one row for each pair of layers, as for `pandas.DataFrame`."""
        names = ("null_mean", "null_quantile", "p_value", "corrected_p_value")
        return [
            {"layer": layer, "reference_layer": other, self.measure: float(self.matrix[row, column])}
            | {name: float(getattr(self, name)[row, column]) for name in names}
            for row, layer in enumerate(self.layers)
            for column, other in enumerate(self.reference_layers)
        ]


def sample_orders(batch: BankBatch, permutations: int, seed: int) -> Tensor:
    """Return orders of the samples of a batch, ``(P + 1, n)``. The first one leaves them in place.

    Batches of the same sequences have the same orders, because their values depend on each other.

    Args:
        batch: The batch.
        permutations: Number of random orders P.
        seed: Seed of the orders.

    Raises:
        ValueError: A number is out of range.
        TypeError: A number is not an integer.
    """
    permutations, seed = at_least(0, "permutations", permutations), check_seed(seed)
    cluster = batch.index if batch.cluster is None else batch.cluster
    orders = np.tile(np.arange(batch.grams.num_samples), (permutations + 1, 1))
    orders[1:] = np.random.default_rng([seed, cluster]).permuted(orders[1:], axis=1)
    return torch.from_numpy(orders)


def null_summary(values: Tensor, *, is_distance: bool) -> dict[str, Tensor]:
    """Return mean, quantile and p-values of permuted values.

    Args:
        values: Values, ``(P + 1, L, R)``. The first ones are those of the samples as they are.
        is_distance: Whether small values are similar.

    Returns:
        By the names of the attributes of `PermutationTest`, tensors ``(L, R)``. They are ``nan`` without permutations,
        and for pairs of layers whose value is ``nan``.
    """
    similarity = (-values if is_distance else values).round(decimals=_DECIMALS)
    observed, null = similarity[0], similarity[1:]
    nothing = torch.full_like(observed, torch.nan)
    if not len(null):
        return dict.fromkeys(("null_mean", "null_quantile", "p_value", "corrected_p_value"), nothing)
    is_defined = ~observed.isnan()
    difference = similarity - null.mean(0)
    # Where all permutations have one value, its excess is 0 and not 0 / 0.
    excess = (difference / null.std(0, correction=0)).masked_fill(difference == 0, 0.0)
    largest = excess[1:].nan_to_num(-torch.inf, torch.inf, -torch.inf).flatten(1).amax(1)
    level = 1 - NULL_LEVEL if is_distance else NULL_LEVEL
    return {
        "null_mean": values[1:].mean(0),
        "null_quantile": values[1:].quantile(level, 0),
        "p_value": _share(null >= observed).where(is_defined, nothing),
        "corrected_p_value": _share(largest[:, None, None] >= excess[0]).where(is_defined, nothing),
    }


def _share(is_as_similar: Tensor) -> Tensor:
    """Return the share of ``(P, L, R)`` permutations, among them the samples as they are."""
    return (1 + is_as_similar.double().sum(0)) / (1 + len(is_as_similar))
