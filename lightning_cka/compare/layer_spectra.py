"""`layer_spectra`: over how many directions the variance of each layer is spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.hsic.packed import select_layers, unpack, widened
from lightning_cka.hsic.spectrum import effective_dimension_terms, eigenvalue_shares
from lightning_cka.hsic.subset import select_samples, usable_places
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.sample_selection import SampleSelection

_MIN_PART = 0.75
"""Part of the largest number of samples from which on a batch counts for the shares."""


@dataclass(frozen=True)
class LayerSpectrum:
    """The eigenvalues of one layer.

    Attributes:
        shares: Part of the variance along each eigenvector of a batch's doubly centered Gram matrix, in descending
            order, as the mean over batches; empty if the layer does not vary in any batch. Shares depend on the size of
            batches: small batches spread over fewer directions.
        effective_dimension: Participation ratio (sum lambda)^2 / sum lambda^2 of the covariance matrix's eigenvalues
            lambda, from all batches; see `LayerDiagnostics`.
        num_samples: Number of samples in a batch; the smallest one if they differ.
        num_batches: Number of batches behind the shares.
    """

    shares: Tensor
    effective_dimension: float
    num_samples: int
    num_batches: int


def layer_spectra(bank: GramBank, layers: Sequence[str], selection: SampleSelection) -> dict[str, LayerSpectrum]:
    """Return the spectrum of each layer.

    Samples that are not usable, such as those with ``nan``, are left out. Batches that have fewer than three quarters
    of the samples of the largest one do not count for the shares.

    Args:
        bank: The bank.
        layers: Names of the layers.
        selection: Which samples count.
    """
    return {name: _spectrum(bank, bank.layers.index(name), selection) for name in layers}


def _spectrum(bank: GramBank, row: int, selection: SampleSelection) -> LayerSpectrum:
    spectra, sums = [], torch.zeros(2, dtype=torch.float64)
    for batch in bank:
        grams = select_layers(batch.grams, [row])
        places = usable_places(grams, selection.places(batch))
        if len(places) < MIN_SAMPLES:
            continue
        grams = select_samples(grams, places)
        sums = sums + effective_dimension_terms(grams)[:, 0]
        # The scale of a layer without variance is zero: its matrix has only rounding errors.
        shares = eigenvalue_shares(unpack(widened(grams)) * grams.scales)[0]
        if not shares.isnan().any():
            spectra.append(shares)
    largest = max(map(len, spectra), default=0)
    counted = [shares for shares in spectra if len(shares) + 1 >= _MIN_PART * (largest + 1)]
    length = min(map(len, counted), default=0)
    mean = torch.stack([shares[:length] for shares in counted]).mean(0) if counted else torch.empty(0)
    return LayerSpectrum(mean, float(sums[0] / sums[1]), length + 1, len(counted))
