"""`RankSums`: the effective ranks and dimensions of a model's layers, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cka.compare.layer_ranks import LayerRank
from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.hsic.jackknife import jackknife_error, sums_of_others
from lightning_cka.hsic.packed import PackedGrams, select_layers, unpack, widened
from lightning_cka.hsic.spectrum import effective_dimension_terms, effective_rank
from lightning_cka.hsic.subset import select_samples, usable_places
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.sample_selection import SampleSelection
from lightning_cka.probe.token_clusters import TokenClusters
from lightning_cka.runtime.collectives import gather_rows

MIN_PART = 0.75
"""Part of the largest number of samples from which on a batch counts: smaller ones have room for fewer directions."""

_MAX_ENTRIES = 2**22
"""Largest number of matrix entries that are unpacked at a time."""


class RankSums:
    """Collects the effective rank of each layer on each batch. Computes in float64 on the CPU.

    Groups of samples do not matter: batches are taken as a whole.

    Args:
        layers: Names of the L layers.
        selection: Which samples count.
        sample_kind: Kind of the sample numbers. Batches of tokens of the same sequences are not independent.
    """

    def __init__(self, layers: Sequence[str], selection: SampleSelection, sample_kind: str) -> None:
        self._layers = tuple(layers)
        self._selection = selection.of_kind(sample_kind)
        self._clusters = TokenClusters(sample_kind)
        self._rows: list[Tensor] = []

    def add(self, batch: BankBatch) -> None:
        """Add one batch of linear Gram matrices."""
        cluster = self._clusters.mark(batch).cluster
        grams = PackedGrams(*(part.cpu() for part in batch.grams))
        places = self._selection.places(batch)
        values = _values(grams, places)
        for row in values[1].isnan().nonzero().flatten().tolist():
            own = select_layers(grams, [row])
            values[:, row] = _values(own, usable_places(own, places))[:, 0]
        head = values.new_tensor([batch.index, batch.index if cluster is None else cluster])
        self._rows.append(torch.cat([head, values.flatten()]))

    def result(self, device: torch.device, *, distributed: bool) -> tuple[dict[str, LayerRank], int]:
        """Return the rank of each layer, and the number of samples of the smallest batch that counts.

        Args:
            device: The device that the processes communicate through.
            distributed: Whether several processes share the batches. Then all of them must call this.
        """
        width = 2 + 4 * len(self._layers)
        own = torch.stack(self._rows) if self._rows else torch.empty(0, width, dtype=torch.float64, device="cpu")
        rows = gather_rows(own.to(device), distributed=distributed).to("cpu", torch.float64)
        rows = rows[rows[:, 0].argsort()]  # The same sums for any number of processes.
        clusters = rows[:, 1]
        sizes, ranks, numerators, denominators = rows[:, 2:].chunk(4, dim=1)
        counts = ~ranks.isnan() & (sizes >= MIN_PART * max(sizes.nan_to_num().flatten().tolist(), default=0))
        dimensions = (numerators.nansum(0) / denominators.nansum(0)).tolist()
        found = {
            name: LayerRank(*_mean(ranks[counts[:, place], place], clusters[counts[:, place]]), dimensions[place])
            for place, name in enumerate(self._layers)
        }
        return found, int(sizes[counts].min()) if counts.any() else 0


def _values(grams: PackedGrams, places: Sequence[int]) -> Tensor:
    """Return values of some samples in each layer, ``(4, L)``; ``nan`` for fewer than 4, or if one is not usable.

    They are the number of samples, the effective rank, and the terms of the effective dimension.
    """
    count = len(grams.halves)
    if len(places) < MIN_SAMPLES:
        return torch.full((4, count), torch.nan, dtype=torch.float64, device="cpu")
    step = max(1, _MAX_ENTRIES // grams.num_samples**2)
    chunks = (select_layers(grams, slice(start, start + step)) for start in range(0, count, step))
    parts = (_values_of(select_samples(chunk, places)) for chunk in chunks)
    return torch.cat(list(parts), 1)


def _values_of(grams: PackedGrams) -> Tensor:
    # The scale of a layer without variance is zero: its matrix has only rounding errors.
    ranks = effective_rank(unpack(widened(grams)) * grams.scales[:, None, None])
    return torch.stack([torch.full_like(ranks, grams.num_samples), ranks, *effective_dimension_terms(grams)])


def _mean(ranks: Tensor, clusters: Tensor) -> tuple[float, float, int]:
    """Return the mean of one layer's ranks ``(k,)``, with an error over batches that do not depend on each other."""
    if not len(ranks):
        return torch.nan, torch.nan, 0
    first = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters.tolist()))}
    places = torch.tensor([first[cluster] for cluster in clusters.tolist()], device="cpu")
    sums = ranks.new_zeros(len(first), 2).index_add_(0, places, torch.stack([ranks, torch.ones_like(ranks)], 1))
    mean, others = ranks.mean(), sums_of_others(sums)
    error = jackknife_error(mean, others[:, 0] / others[:, 1], sums[:, 1])
    return float(mean), float(error), len(sums)
