"""`BlockResult`: a measure of large blocks for all pairs of layers, with its values for permuted samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_cka.compare.layer_pairs import LayerPairs

NULL_LEVEL = 0.95
"""Share of the permutations that are less similar than `BlockResult.null_quantile`."""


@dataclass(frozen=True, eq=False, repr=False)
class BlockResult(LayerPairs):
    """A measure of all L layers of a model and all R layers of a reference, with a permutation test.

    `procrustes` and `predictivity` make these objects. The null distribution are the values after the samples of one
    model are permuted within each block: what the measure is for layers of this kind that have nothing in common.

    Attributes:
        matrix: Values, ``(L, R)`` float64. Rows are the model's layers, columns the reference's. ``nan`` for layers
            without variance or with values that are not finite.
        layers: Names of the rows.
        reference_layers: Names of the columns.
        measure: Name of the measure, "procrustes" or "predictivity".
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
        self_comparison: Whether the model is compared with itself.
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

    def __repr__(self) -> str:
        return (
            f"BlockResult({self.measure} of {self.model_name} and {self.reference_name}: {len(self.layers)} x "
            f"{len(self.reference_layers)} layers, {self.num_samples} samples in {len(self.block_sizes)} blocks, mean "
            f"{self.mean():.3f}, {self.num_permutations} permutations)"
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


def null_summary(values: Tensor, *, is_distance: bool) -> dict[str, Tensor]:
    """Return mean, quantile and p-values of permuted values.

    Args:
        values: Values, ``(P + 1, L, R)``. The first ones are those of the samples as they are.
        is_distance: Whether small values are similar.

    Returns:
        By the names of the attributes of `BlockResult`, tensors ``(L, R)``. They are ``nan`` without permutations, and
        for pairs of layers whose value is ``nan``.
    """
    similarity = -values if is_distance else values
    observed, null = similarity[0], similarity[1:]
    nothing = torch.full_like(observed, torch.nan)
    if not len(null):
        return dict.fromkeys(("null_mean", "null_quantile", "p_value", "corrected_p_value"), nothing)
    is_defined = ~observed.isnan()
    excess = (similarity - null.mean(0)) / null.std(0, correction=0)
    largest = excess[1:].nan_to_num(-torch.inf, torch.inf, -torch.inf).flatten(1).amax(1)
    sign = -1 if is_distance else 1
    return {
        "null_mean": sign * null.mean(0),
        "null_quantile": sign * null.quantile(NULL_LEVEL, 0),
        "p_value": _share(null >= observed).where(is_defined, nothing),
        "corrected_p_value": _share(largest[:, None, None] >= excess[0]).where(is_defined, nothing),
    }


def _share(is_as_similar: Tensor) -> Tensor:
    """Return the share of ``(P, L, R)`` permutations, among them the samples as they are."""
    return (1 + is_as_similar.double().sum(0)) / (1 + len(is_as_similar))
