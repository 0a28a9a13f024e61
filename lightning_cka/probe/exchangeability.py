"""Are the probe set's batches alike but for chance? CKA averaged over batches of similar samples is biased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.special import fdtrc
from torch import Tensor

from lightning_cka.hsic.packed import pack_stack
from lightning_cka.hsic.spectrum import effective_dimension_numerator
from lightning_cka.runtime.collectives import all_reduce_sum
from lightning_cka.runtime.text import shortened

_COORDINATES = 256
"""Of each layer's features: enough to see batches differ, and little work beside the Gram product."""


SIGNIFICANCE = 1e-4
"""A shuffled loader is accused once in ten thousand runs."""


class Variation(NamedTuple):
    """A layer whose batch means differ by more than chance."""

    layer: str
    ratio: float
    """Variance between batch means over that which the variance within batches explains; 1 on average if shuffled."""
    p_value: float
    """Corrected for the number of layers."""


class BatchVariation:
    """Accumulates, over batches, the variation between and within them of some coordinates of each layer.

    The ratio is that of a one-way analysis of variance, summed over coordinates. With degrees of freedom times the
    participation ratio of the layer, it has an F distribution, near enough (Satterthwaite's approximation). Layers
    whose number of features differs from batch to batch are not tested.

    Args:
        layers: names.
        device: of the sums, which are in float64.
    """

    def __init__(self, layers: Sequence[str], device: torch.device) -> None:
        self._layers = tuple(layers)
        self._widths: dict[int, int] = {}
        self._weighted_means = torch.zeros(len(layers), _COORDINATES, dtype=torch.float64, device=device)
        # By layer: sum of n |mean|^2; sum of squares within; numerator and denominator of the participation ratio.
        self._sums = torch.zeros(4, len(layers), dtype=torch.float64, device=device)
        # By layer: samples and batches.
        self._counts = torch.zeros(2, len(layers), dtype=torch.float64, device=device)

    def add(self, row: int, features: Tensor) -> None:
        """Take one batch of one layer, features ``(n, ...)``."""
        flat = features.detach().reshape(len(features), -1)
        n, d = flat.shape
        if self._widths.setdefault(row, d) != d:
            # Padded to the longest of a batch, say: coordinates of two batches are not the same features.
            self._counts[:, row] = torch.nan
            return
        if d > _COORDINATES - 1:
            # Multiples of the golden ratio spread evenly, and in step with no dimension of the features.
            places = torch.arange(1, _COORDINATES, dtype=torch.float64) * 0.6180339887498949 % 1 * d
            flat = flat[:, places.long().to(flat.device)]
        flat = flat.to(self._sums)
        # Directions and logarithms of lengths: a test of variances would take a heavy tail for a lack of shuffling.
        length = flat.norm(dim=1, keepdim=True)
        # Samples without a direction, of a dead ReLU, are as short as the shortest that has one.
        shortest = length.where(length > 0, length.amax()).amin().clamp(min=torch.finfo(torch.float32).tiny)
        length = length.clamp(min=shortest)
        flat = torch.cat([flat / length, length.log()], dim=1)
        mean = flat.mean(0)
        centered = flat - mean
        packed = pack_stack((centered @ centered.T)[None])
        norm = packed.row_squares.sum(1)
        numerator = effective_dimension_numerator(packed.offsets, norm)
        parts = (n * mean.square().sum()[None], centered.square().sum()[None], numerator, norm)
        self._weighted_means[row, : len(mean)] += n * mean
        self._sums[:, row] += torch.cat(parts)
        self._counts[:, row] += torch.tensor([n, 1]).to(self._counts)

    def result(self, *, distributed: bool, significance: float = SIGNIFICANCE) -> list[Variation]:
        """The layers whose batches differ by more than chance, the largest ratio first.

        Args:
            distributed: each process of several has a share of the batches, and all of them ask.
            significance: the p-value below which it is no longer chance.
        """
        means = all_reduce_sum(self._weighted_means, distributed=distributed)
        between, within, numerator, denominator = all_reduce_sum(self._sums, distributed=distributed)
        samples, batches = all_reduce_sum(self._counts, distributed=distributed)
        between = between - means.square().sum(1) / samples
        ratio = between / (batches - 1) / (within / (samples - batches))
        # At least one direction varies; a noisy estimate below that would only make the test bolder.
        dimension = (numerator / denominator).clamp(min=1.0)
        freedom = ((batches - 1) * dimension).tolist(), ((samples - batches) * dimension).tolist()
        p_values = [
            min(1.0, len(self._layers) * float(fdtrc(*degrees, value)))
            for *degrees, value in zip(*freedom, ratio.tolist(), strict=True)
        ]
        found = [Variation(*each) for each in zip(self._layers, ratio.tolist(), p_values, strict=True)]
        return sorted((each for each in found if each.p_value < significance), key=lambda each: -each.ratio)


def variation_message(found: Sequence[Variation], what: str) -> str:
    """The warning of batches that are not exchangeable.

    Args:
        found: at least one.
        what: where the batches come from.
    """
    names = shortened([f"{each.ratio:.1f} times as much in {each.layer}" for each in found], 3)
    return (
        f"the batches of {what} are not exchangeable, as if the data were not shuffled: their means vary more than "
        f"chance explains ({names}). CKA averaged over such batches is biased, and its standard error does not show "
        "that. Shuffle them: DataLoader(shuffle=True)"
    )
