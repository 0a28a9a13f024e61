"""Test whether the batches of a probe set are exchangeable. CKA averaged over batches of similar samples is biased."""

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
"""Number of each layer's features that are tested: enough to detect a difference, and cheap beside the Gram product."""


SIGNIFICANCE = 1e-4
"""p-value below which batches are reported. A shuffled loader is reported in one of ten thousand runs."""


class Variation(NamedTuple):
    """A layer whose batch means differ by more than chance."""

    layer: str
    ratio: float
    """Variance between batch means, relative to what the variance within batches explains. Its mean is 1 for shuffled
    data."""
    p_value: float
    """Probability of a larger ratio by chance, corrected for the number of layers."""


class BatchVariation:
    """Accumulates the variation between and within batches, for some coordinates of each layer.

    The ratio is that of a one-way analysis of variance, summed over coordinates. It has approximately an F
    distribution, whose degrees of freedom are multiplied by the participation ratio of the layer (Satterthwaite's
    approximation). Layers whose number of features differs from batch to batch are not tested.

    Args:
        layers: Names of the layers.
        device: Device of the sums, which are in float64.
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
        """Add one batch of one layer.

        Args:
            row: Index of the layer.
            features: ``(n, ...)``.
        """
        flat = features.detach().reshape(len(features), -1)
        n, width = flat.shape
        if self._widths.setdefault(row, width) != width:
            # A coordinate is not the same feature in each batch, for example if batches are padded to their longest
            # sentence. nan excludes the layer.
            self._counts[:, row] = torch.nan
            return
        coordinates = _directions_and_lengths(_some_coordinates(flat).to(self._sums))
        mean = coordinates.mean(0)
        centered = coordinates - mean
        packed = pack_stack((centered @ centered.T)[None])
        norm = packed.row_squares.sum(1)
        numerator = effective_dimension_numerator(packed.offsets, norm)
        parts = (n * mean.square().sum()[None], centered.square().sum()[None], numerator, norm)
        self._weighted_means[row, : len(mean)] += n * mean
        self._sums[:, row] += torch.cat(parts)
        self._counts[:, row] += torch.tensor([n, 1], device="cpu").to(self._counts)

    def result(self, *, distributed: bool, significance: float = SIGNIFICANCE) -> list[Variation]:
        """Return the layers whose batches differ by more than chance, the largest ratio first.

        Args:
            distributed: Whether the batches are split over processes. Then every process must call this method.
            significance: p-value below which a layer is returned.
        """
        means = all_reduce_sum(self._weighted_means, distributed=distributed)
        between, within, numerator, denominator = all_reduce_sum(self._sums, distributed=distributed)
        samples, batches = all_reduce_sum(self._counts, distributed=distributed)
        between = between - means.square().sum(1) / samples
        ratio = between / (batches - 1) / (within / (samples - batches))
        # At least one direction varies. A noisy estimate below 1 would only make the test reject more often.
        dimension = (numerator / denominator).clamp(min=1.0)
        freedom = ((batches - 1) * dimension).tolist(), ((samples - batches) * dimension).tolist()
        p_values = [
            min(1.0, len(self._layers) * float(fdtrc(*degrees, value)))
            for *degrees, value in zip(*freedom, ratio.tolist(), strict=True)
        ]
        found = [Variation(*each) for each in zip(self._layers, ratio.tolist(), p_values, strict=True)]
        return sorted((each for each in found if each.p_value < significance), key=lambda each: -each.ratio)


def _some_coordinates(flat: Tensor) -> Tensor:
    """Select up to 255 of the features ``(n, d)``, which leaves one coordinate for their length."""
    width = flat.shape[1]
    if width <= _COORDINATES - 1:
        return flat
    # Multiples of the golden ratio are spread evenly, without the period of any dimension of the features.
    places = torch.arange(1, _COORDINATES, dtype=torch.float64, device="cpu") * 0.6180339887498949 % 1 * width
    return flat[:, places.long().to(flat.device)]


def _directions_and_lengths(flat: Tensor) -> Tensor:
    """Return unit vectors and the logarithms of lengths ``(n, d + 1)`` for features ``(n, d)``.

    A test on the features themselves would take heavy tails for a lack of shuffling.
    """
    length = flat.norm(dim=1, keepdim=True)
    # Zero vectors, as of a dead ReLU, get the shortest length that is not zero: log(0) is infinite.
    shortest = length.where(length > 0, length.amax()).amin().clamp(min=torch.finfo(torch.float32).tiny)
    length = length.clamp(min=shortest)
    return torch.cat([flat / length, length.log()], dim=1)


def variation_message(found: Sequence[Variation], source: str) -> str:
    """Return the warning about batches that are not exchangeable.

    Args:
        found: At least one layer.
        source: Where the batches come from.
    """
    names = shortened([f"{each.ratio:.1f} times as much in {each.layer}" for each in found], 3)
    return (
        f"the batches of {source} are not exchangeable, as if the data were not shuffled: their means vary more than "
        f"chance explains ({names}). CKA averaged over such batches is biased, and its standard error does not show "
        "that. Shuffle the data: DataLoader(shuffle=True)"
    )
