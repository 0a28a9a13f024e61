"""Test whether the batches of a probe set are exchangeable. CKA averaged over batches of similar samples is biased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.special import fdtrc
from torch import Tensor

from lightning_cka.hsic.grams import Workspace, flattened, memory_order
from lightning_cka.hsic.packed import u_centering_shift
from lightning_cka.hsic.precision import accumulator_dtype
from lightning_cka.hsic.spectrum import effective_dimension_numerator
from lightning_cka.runtime.collectives import all_reduce_sum
from lightning_cka.runtime.devices import to_device
from lightning_cka.runtime.text import shortened

_COORDINATES = 64
"""Number of each layer's features that are tested."""

_WIDTH = _COORDINATES + 1
"""One more, for the length."""

_MAX_WAITING = 2**19
"""Number of coordinates, of all layers and samples, that are taken together. They fit the cache."""

_LARGEST = 1e18
"""Largest coordinate: the squares of 64 of them do not overflow."""

_ROUNDING = 1e-5
"""Part of a sum of float32 numbers below which their difference is a rounding error."""

_ENOUGH = 512
"""Number of samples that tell the participation ratio of a layer."""

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
    approximation). Layers whose features change their shape from batch to batch are not tested.

    Several layers are taken together, since small operations cost more than what they compute.

    Args:
        layers: Names of the layers.
        device: Device of the sums, which are in float64.
    """

    def __init__(self, layers: Sequence[str], device: torch.device) -> None:
        self._layers = tuple(layers)
        self._orders: dict[int, list[tuple[int, int]]] = {}
        self._places: dict[tuple[int, torch.device], Tensor] = {}
        self._workspace = Workspace()
        self._waiting: list[int] = []
        self._waiting_for: tuple[int, torch.device] | None = None
        self._weighted_means = torch.zeros(len(layers), _WIDTH, dtype=torch.float64, device=device)
        # By layer: sum of n |mean|^2; sum of squares within; and the three sums of `_dimension_terms`.
        self._sums = torch.zeros(5, len(layers), dtype=torch.float64, device=device)
        # By layer: samples and batches.
        self._counts = torch.zeros(2, len(layers), dtype=torch.float64, device="cpu")

    def add(self, row: int, features: Tensor) -> None:
        """Add one batch of one layer.

        Args:
            row: Index of the layer.
            features: ``(n, ...)``.
        """
        order = [each for each in memory_order(features) if each[1] > 1]
        if self._orders.setdefault(row, order) != order:
            # A coordinate is not the same feature in each batch, for example if batches are padded to their longest
            # sentence. nan excludes the layer.
            self._counts[:, row] = torch.nan
            return
        flat = flattened(features.detach())
        n, device = len(flat), flat.device
        if row in self._waiting or (n, device) != self._waiting_for:
            self._add_waiting()
            self._waiting_for = n, device
            size = max(1, _MAX_WAITING // (n * _WIDTH))
            memory = self._workspace.matrix("coordinates", size, n * _WIDTH, torch.float32, device)
            self._coordinates = memory.view(size, n, _WIDTH)
        _copy_coordinates(flat, self._coordinates[len(self._waiting)], self._places)
        self._waiting.append(row)
        if len(self._waiting) == len(self._coordinates):
            self._add_waiting()

    def _add_waiting(self) -> None:
        """Add the batches of all layers that wait."""
        if not self._waiting:
            return
        rows = to_device(torch.tensor(self._waiting, device="cpu"), self._sums.device)
        x = self._coordinates[: len(self._waiting)]
        _to_directions_and_lengths(x)
        n, dtype = x.shape[1], accumulator_dtype(x.device)
        about = x.mean(1, keepdim=True)
        x -= about  # The mean of what remains has all digits.
        rest = x.mean(1, keepdim=True)
        x -= rest
        mean = (about.to(dtype) + rest).squeeze(1).to(self._sums)
        squares = torch.linalg.vector_norm(x, dim=2).to(dtype).square()
        sums = [n * mean.square().sum(1), squares.sum(1)]
        if self._counts[0, self._waiting].min() < _ENOUGH:
            sums += _dimension_terms(x, squares)
        self._sums[: len(sums)].index_add_(1, rows, torch.stack([each.to(self._sums) for each in sums]))
        self._weighted_means.index_add_(0, rows, n * mean)
        self._counts[:, self._waiting] += torch.tensor([[n], [1]], dtype=torch.float64, device="cpu")
        self._waiting = []

    def result(self, *, distributed: bool, significance: float = SIGNIFICANCE) -> list[Variation]:
        """Return the layers whose batches differ by more than chance, the largest ratio first.

        Args:
            distributed: Whether the batches are split over processes. Then every process must call this method.
            significance: p-value below which a layer is returned.
        """
        self._add_waiting()
        means = all_reduce_sum(self._weighted_means, distributed=distributed)
        between, within, numerator, norm, bound = all_reduce_sum(self._sums, distributed=distributed)
        samples, batches = all_reduce_sum(self._counts.to(self._sums.device), distributed=distributed)
        between = between - means.square().sum(1) / samples
        ratio = between / (batches - 1) / (within / (samples - batches))
        # At least one direction varies. A noisy estimate below 1 would only make the test reject more often.
        dimension = (numerator / norm).where(norm > _ROUNDING * bound, torch.zeros_like(norm)).clamp(min=1.0)
        freedom = ((batches - 1) * dimension).tolist(), ((samples - batches) * dimension).tolist()
        p_values = [
            min(1.0, len(self._layers) * float(fdtrc(*degrees, value)))
            for *degrees, value in zip(*freedom, ratio.tolist(), strict=True)
        ]
        found = [Variation(*each) for each in zip(self._layers, ratio.tolist(), p_values, strict=True)]
        return sorted((each for each in found if each.p_value < significance), key=lambda each: -each.ratio)


def _copy_coordinates(flat: Tensor, out: Tensor, places: dict[tuple[int, torch.device], Tensor]) -> None:
    """Copy up to 64 of the features ``(n, d)`` to the first of 65 columns.

    Args:
        flat: The features.
        out: Receives them, ``(n, 65)``.
        places: Keeps which features are chosen.
    """
    width = flat.shape[1]
    if width <= _COORDINATES:
        out.zero_()
        out[:, :width] = flat
        return
    key = width, flat.device
    if key not in places:
        # Multiples of the golden ratio are spread evenly, without the period of any dimension of the features.
        parts = torch.arange(1, _WIDTH + 1, dtype=torch.float64, device="cpu") * 0.6180339887498949 % 1
        places[key] = (parts * width).long().sort().values.to(flat.device)
    out.copy_(flat.index_select(1, places[key]))


def _dimension_terms(x: Tensor, squares: Tensor) -> list[Tensor]:
    """Return numerators and denominators of participation ratios, and sums that tell if these are rounding errors.

    Args:
        x: Centered features, ``(L, n, d)``.
        squares: Their squared lengths, ``(L, n)``.
    """
    n, total, bound = x.shape[1], squares.sum(1), squares.square().sum(1)
    # <U, U> and the offsets of the Gram matrix K of x, whose rows sum to zero. <K, K> is that of the smaller x^T x.
    norm = torch.bmm(x.mT, x).square().sum((1, 2)).to(squares) - bound * (n / (n - 2))
    norm += total.square() / ((n - 1) * (n - 2))
    return [effective_dimension_numerator(u_centering_shift(-squares) - squares / 2, norm), norm, bound]


def _to_directions_and_lengths(features: Tensor) -> None:
    """Replace features by unit vectors, and the last column by the logarithms of their lengths.

    A test on the features themselves would take heavy tails for a lack of shuffling.

    Args:
        features: ``(L, n, d + 1)``.
    """
    features.clamp_(-_LARGEST, _LARGEST)
    length = features[:, :, :-1].norm(dim=2, keepdim=True)
    # A zero vector, as of a dead ReLU, gets the length 1, since log(0) is infinite. A length that depended on the other
    # samples of the batch would make batches differ.
    length = length.where(length > 0, torch.ones_like(length))
    features /= length
    features[:, :, -1:] = length.log()


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
