"""CKA of each layer with itself at the last moment of a run, from Gram banks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cka.compare.bank_series import (
    BankSource,
    batches_at_a_time,
    check_same_layers_and_probe_set,
    moment_names,
)
from lightning_cka.compare.intervals import interval
from lightning_cka.hsic.jackknife import effective_batches, jackknife_error, sums_of_others
from lightning_cka.hsic.measure import CKA
from lightning_cka.hsic.products import Vectors, partner_products
from lightning_cka.probe.bank import GramBank, open_bank
from lightning_cka.probe.token_clusters import TokenClusters

_MEASURE = CKA()


@dataclass(frozen=True, eq=False)
class SimilarityToLast:
    """Unbiased linear CKA of each layer with itself at the last moment.

    Attributes:
        layers: Names of the L layers.
        moments: Names of the M moments: "init" and the epochs, or steps.
        when: Epoch and step of each moment.
        values: CKA, ``(L, M)`` float64. The last column is 1, or ``nan`` for a layer without variance.
        standard_error: Standard errors over probe batches, ``(L, M)`` float64.
        effective_batches: Number of batches of equal size with the same variance.
        model_name: Class of the network.
    """

    layers: tuple[str, ...]
    moments: tuple[str, ...]
    when: tuple[tuple[int | None, int | None], ...]
    values: Tensor
    standard_error: Tensor
    effective_batches: float
    model_name: str

    def bounds(self, level: float) -> tuple[Tensor, Tensor]:
        """Return confidence intervals, each ``(L, M)``; ``nan`` with fewer than about four effective batches."""
        return interval(self.values, self.standard_error, self.effective_batches, level)

    def converged_since(self, tolerance: float, level: float) -> dict[str, int | None]:
        """Return for each layer from which moment on CKA is above ``1 - tolerance`` with confidence.

        All moments from the returned one on have the lower end of their interval above it, so that no correction for
        their number is due.

        Returns:
            Index of the first such moment, by layer. None: not even the last but one is above it.
        """
        passes = (self.bounds(level)[0] > 1 - tolerance)[:, :-1]
        lasting = passes.flip(1).long().cumprod(1).sum(1).tolist()
        count = len(self.moments) - 1
        return {name: count - length if length else None for name, length in zip(self.layers, lasting, strict=True)}


def similarity_to_last(sources: Sequence[BankSource]) -> SimilarityToLast:
    """Compare each layer with itself at the last moment: M comparisons of each layer for M moments.

    Paper: Kornblith et al. 2019, https://arxiv.org/abs/1905.00414.

    Args:
        sources: At least two banks of one network on one probe set, in order of time, or their files. These are read
            some MiB at a time, or one probe batch.

    Raises:
        ValueError: The layers or the probe sets of the banks differ.
    """
    headers = [open_bank(source, batches=()) for source in sources]  # Everything but the Gram matrices.
    check_same_layers_and_probe_set(headers)
    clusters = TokenClusters(headers[0].sample_kind)
    weights: dict[int, float] = {}
    sums: dict[int, Tensor] = {}
    for indices in batches_at_a_time(headers[0]):
        last = open_bank(sources[-1], batches=indices).batches
        vectors = [_MEASURE.vectors(last[index].grams) for index in indices]
        of_sources = [_products(open_bank(source, batches=indices), indices, vectors) for source in sources]
        for index, *products in zip(indices, *of_sources, strict=True):
            cluster = clusters.mark(last[index]).cluster
            # Dependent batches, of tokens of the same sequences, are one.
            place = index if cluster is None else cluster
            summed = torch.stack(products, -1)
            sums[place] = sums[place] + summed if place in sums else summed
            weights[place] = weights.get(place, 0.0) + _MEASURE.weight(last[index].grams.num_samples)
    by_batch = torch.stack(list(sums.values()))
    of_batches = torch.tensor(list(weights.values()), dtype=torch.float64, device="cpu")
    values = _cka(by_batch.sum(0))
    left_out = torch.stack([_cka(others) for others in sums_of_others(by_batch)])
    return SimilarityToLast(
        headers[0].layers,
        moment_names(headers),
        tuple((header.epoch, header.step) for header in headers),
        values,
        jackknife_error(values, left_out, of_batches),
        effective_batches(of_batches),
        headers[0].model_name,
    )


def _products(bank: GramBank, indices: Sequence[int], of_last: Sequence[Vectors]) -> list[Tensor]:
    """Return <K, L>, <K, K> and <L, L> of each layer with itself at the last moment, for each batch, ``(3, L)``."""
    batches = [bank.batches[index] for index in indices]
    return [partner_products(_MEASURE.vectors(batch.grams), last) for batch, last in zip(batches, of_last, strict=True)]


def _cka(products: Tensor) -> Tensor:
    """Return CKA from sums of products ``(3, L, M)``."""
    pairs, own, others = products
    cka: Tensor = pairs / (own * others).sqrt()
    return cka
