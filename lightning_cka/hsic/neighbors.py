"""`MutualKNN`: how many nearest neighbours two layers have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lightning_cka.hsic.entry_positions import square_positions
from lightning_cka.hsic.kernel_grams import in_chunks
from lightning_cka.hsic.measure import Measure, part_of_one, with_parameters
from lightning_cka.hsic.ordered_distances import OrderedDistances
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.products import Vectors

DEFAULT_NEIGHBORS = 0.1
"""Number of neighbours, as a part of the batch."""

_SPREAD_OVER = 6
"""Least number of neighbours that tell how far apart neighbours are. The spread of two alone may be nearly zero."""

_LARGEST_LOSS = 1e-2
"""Largest part of all neighbours that rounding errors may exchange, by an estimate that is some ten times too high."""


@dataclass(frozen=True)
class MutualKNN(Measure):
    """Mutual nearest neighbours, corrected for chance: the part of each sample's neighbours that two layers share.

    It depends on the neighbourhood of each sample alone, so that neither a far sample nor a shifted group changes it
    much. 0 is what unrelated layers have on average, and 1 means the same neighbours. It depends on the batch size,
    since the number of neighbours does.

    Source: Huh et al. 2024, https://arxiv.org/abs/2405.07987. The correction subtracts the expected overlap k / (n-1)
    of unrelated layers.

    Args:
        neighbors: Number k of neighbours as a part of the batch, in (0, 1). For n samples, k is ``neighbors * n``,
            rounded half to even, and at least 1.
        corrected: Whether to correct for chance. False gives the part of neighbours in common, in [0, 1], as in the
            paper.

    Raises:
        ValueError: ``neighbors`` is not between 0 and 1.
        TypeError: ``neighbors`` is not a number.

    Example:
        >>> import torch
        >>> from lightning_cka import GramBank, MutualKNN, compare_banks
        >>> _ = torch.manual_seed(0)
        >>> batches = [torch.randn(64, 16) for _ in range(8)]
        >>> nets = [torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU()) for _ in range(2)]
        >>> a, b = (GramBank.from_model(net, batches, progress_bar=False) for net in nets)
        >>> compare_banks(a, b, measures=MutualKNN(neighbors=0.2)).measure
        'mutual_knn(0.2)'
    """

    neighbors: float = DEFAULT_NEIGHBORS
    corrected: bool = True

    key: ClassVar[str] = "mutual_knn"

    def __post_init__(self) -> None:
        """Check the number of neighbours."""
        object.__setattr__(self, "neighbors", part_of_one("MutualKNN", "neighbors", self.neighbors))

    @property
    def name(self) -> str:
        """Return "mutual_knn", with parameters that are not the defaults."""
        given = [] if self.neighbors == DEFAULT_NEIGHBORS else [f"{self.neighbors:g}"]
        return with_parameters(self.key, *given, *([] if self.corrected else ["uncorrected"]))

    @property
    def is_unbiased(self) -> bool:
        """Return whether the value is corrected for chance."""
        return self.corrected

    def num_neighbors(self, n: int) -> int:
        """Return the number k of neighbours in a batch of n samples."""
        return max(1, round(self.neighbors * n))

    def check(self, n: int) -> None:
        """Check that not all other samples are neighbours.

        Raises:
            ValueError: They are.
        """
        if self.num_neighbors(n) > n - 2:
            raise ValueError(
                f"neighbors={self.neighbors:g} makes {self.num_neighbors(n)} of the {n - 1} other samples of a batch "
                f"neighbours; pass a smaller one"
            )

    def vectors(self, grams: PackedGrams) -> Vectors:
        """Return the vectors ``(L, n^2)``: 1 where j is a neighbour of i, else 0.

        Each row has k ones, so that correcting for chance, M - k/(n-1), subtracts n k^2 / (n-1) from the products.
        Of samples at the same distance, those that come first are neighbours. Layers are undefined where rounding
        errors of distances may exchange more than about a thousandth of all neighbours.
        """
        n = grams.num_samples
        k = self.num_neighbors(n)
        values = torch.empty(len(grams.halves), n, n, dtype=torch.int8, device=grams.halves.device)
        factors = torch.ones_like(grams.scales)
        for chosen, part in in_chunks(grams):
            squared, errors = OrderedDistances.of(part)
            # The first distance is that of the sample from itself.
            nearest = _smallest(squared, min(max(k, _SPREAD_OVER), n - 1) + 1)
            values[chosen] = _is_neighbor(squared, nearest[:, :, k], k)
            undefined = squared.isnan().any(2).any(1) | ~(_lost_part(nearest, errors, k) <= _LARGEST_LOSS)
            factors[chosen] = factors[chosen].masked_fill(undefined, torch.nan)
        chance = n * k**2 / (n - 1) if self.corrected else 0.0
        return Vectors(values.flatten(1), factors * grams.scales.sign(), n, chance)

    def positions(self, n: int) -> Tensor:
        """Return the positions in the flattened matrix."""
        return square_positions(n)

    def weight(self, n: int) -> float:
        """Return the squared norm of a vector."""
        k = self.num_neighbors(n)
        return n * k * (1 - k / (n - 1)) if self.corrected else n * k


def _smallest(squared: Tensor, count: int) -> Tensor:
    """Return the smallest squared distances of each sample in ascending order, ``(L, n, count)``."""
    if squared.device.type != "cpu":
        return squared.topk(count, dim=2, largest=False).values
    # With NumPy's vector instructions, sorting all is faster than `topk`.
    return torch.from_numpy(np.sort(squared.numpy(), 2)[:, :, :count])


def _is_neighbor(squared: Tensor, farthest: Tensor, k: int) -> Tensor:
    """Return whether j is among the k nearest others of i, ``(L, n, n)``.

    Args:
        squared: Squared distances, ``(L, n, n)``.
        farthest: Squared distance of the k-th nearest other sample, ``(L, n)``.
        k: Number of neighbours.
    """
    is_nearer = squared < farthest[:, :, None]
    is_tied = squared == farthest[:, :, None]
    for each in (is_nearer, is_tied):
        each.diagonal(dim1=1, dim2=2).fill_(False)
    # Of samples at the same distance, the first ones fill the places that are left.
    places = k - is_nearer.sum(2, keepdim=True, dtype=torch.int32)
    return is_nearer | (is_tied & (is_tied.cumsum(2, dtype=torch.int16) <= places))


def _lost_part(nearest: Tensor, errors: Tensor, k: int) -> Tensor:
    """Return the part of neighbours that rounding errors may change, ``(L,)``.

    Around the k-th neighbour, samples lie about (D_m - D_1) / (m - 1) apart, where D_1 and D_m are the distances of
    the first and of the m-th neighbour. An error e thus exchanges e (m - 1) / (D_m - D_1) of the k neighbours. It also
    counts if it is as large as D_k, as within small groups. Where D_1 and D_m are equal, as between copies of a sample,
    the error counts if it is as large as the distances to the last neighbours of most samples.

    Args:
        nearest: Distances of each sample from itself and from its m neighbours, in ascending order, ``(L, n, m + 1)``,
            with m >= k.
        errors: Errors of distances; see `OrderedDistances`.
        k: Number of neighbours.
    """
    first, last = nearest[:, :, 1], nearest[:, :, -1]
    spread, m = last - first, nearest.shape[2] - 1
    among_copies = (errors > last.median(1, keepdim=True).values).to(errors)
    farthest = nearest[:, :, k]
    relative = torch.where(farthest > 0, errors / farthest, torch.zeros_like(errors))
    of_neighbors = torch.maximum(errors / spread * ((m - 1) / k), relative)
    return torch.where(spread > 0, of_neighbors, among_copies).clamp(max=1.0).mean(1)
