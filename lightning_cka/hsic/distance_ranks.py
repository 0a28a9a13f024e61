"""`RSA`: whether two layers order the pairs of samples by distance in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lightning_cka.hsic.distance_errors import LARGEST_LOSS
from lightning_cka.hsic.entry_positions import pair_positions
from lightning_cka.hsic.kernel_grams import in_chunks
from lightning_cka.hsic.measure import Measure
from lightning_cka.hsic.ordered_distances import OrderedDistances
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.products import Vectors

_WINDOW = 0.05
"""Half the part of all pairs whose distances tell how far apart the ranks are around a pair."""


@dataclass(frozen=True)
class RSA(Measure):
    """Representational similarity analysis: Spearman's correlation between the distances of two layers.

    For each batch of n samples, the n(n-1)/2 squared distances are replaced by their ranks, divided by their number,
    less their mean. Ties get mean ranks. Ranks do not depend on how far a sample is away, but all pairs count, unlike
    in `MutualKNN`.

    Source: Kriegeskorte et al. 2008, https://doi.org/10.3389/neuro.06.004.2008.

    Example:
        >>> from lightning_cka import RSA
        >>> RSA().name
        'rsa'
    """

    key: ClassVar[str] = "rsa"

    @property
    def name(self) -> str:
        """Return "rsa"."""
        return self.key

    def vectors(self, grams: PackedGrams) -> Vectors:
        """Return the vectors ``(L, n(n-1)/2)``: ranks of the squared distances.

        Layers are undefined where rounding errors of distances may take more than a thousandth of the correlation.
        """
        n = grams.num_samples
        rows, columns = torch.triu_indices(n, n, 1, device=grams.halves.device)
        values = grams.halves.new_empty(len(grams.halves), len(rows))
        factors = torch.ones_like(grams.scales)
        for chosen, part in in_chunks(grams):
            squared, errors = OrderedDistances.of(part)
            pairs = squared[:, rows, columns]
            order = _order(pairs)
            ordered = pairs.gather(1, order)
            ranks = _mean_ranks(ordered) / len(rows)
            values[chosen] = torch.empty_like(ranks).scatter_(1, order, ranks - ranks.mean(1, keepdim=True)).to(values)
            of_pairs = (errors[:, rows] + errors[:, columns]).gather(1, order)
            undefined = pairs.isnan().any(1) | ~(_lost_part(ordered, of_pairs) <= LARGEST_LOSS)
            factors[chosen] = factors[chosen].masked_fill(undefined, torch.nan)
        return Vectors(values, factors * grams.scales.sign(), n)

    def positions(self, n: int) -> Tensor:
        """Return the positions of the pairs i < j."""
        return pair_positions(n)

    def weight(self, n: int) -> float:
        """Return the number of pairs."""
        return n * (n - 1) / 2


def _order(values: Tensor) -> Tensor:
    """Return the indices that sort each row of values ``(L, m)``."""
    if values.device.type != "cpu":
        return values.argsort(1)
    # NumPy's vector instructions are some six times as fast. The order of equal values does not matter.
    return torch.from_numpy(np.argsort(values.numpy(), 1))


def _mean_ranks(ordered: Tensor) -> Tensor:
    """Return the ranks of sorted values ``(L, m)``, from 1 on. Equal values get their mean rank."""
    m = ordered.shape[1]
    differs = ordered[:, 1:] != ordered[:, :-1]
    starts = torch.cat([differs.new_ones(len(ordered), 1), differs], 1).flatten().nonzero()[:, 0]
    counts = starts.diff(append=starts.new_tensor([ordered.numel()]))
    means = (starts % m).to(ordered) + (counts.to(ordered) + 1) / 2
    return means.repeat_interleave(counts, output_size=ordered.numel()).reshape(ordered.shape)


def _lost_part(ordered: Tensor, errors: Tensor) -> Tensor:
    """Return the part of the correlation that rounding errors may take, ``(L,)``.

    Errors e move a pair by r = e / (D' - D'') in units of that part of all ranks that lies between the distances D' and
    D''. Ranks have a variance of 1/12, so that the errors take the part 12 r^2 / 2.

    Args:
        ordered: Squared distances of all pairs, in ascending order, ``(L, m)``.
        errors: Standard deviations of their errors, in the same order, ``(L, m)``.
    """
    m = ordered.shape[1]
    window = max(1, round(_WINDOW * m))
    places = torch.arange(m, device=ordered.device)
    below, above = (places - window).clamp(min=0), (places + window).clamp(max=m - 1)
    spread = ordered[:, above] - ordered[:, below]
    moved = errors / spread * ((above - below) / m)
    # Many equal distances: copies of samples. Errors count if they are as large as other distances.
    among_copies = (errors > ordered.median(1, keepdim=True).values).to(errors)
    return 6 * torch.where(spread > 0, moved, among_copies).clamp(max=1.0).square().mean(1)
