"""`seed_ceiling`: what trainings reach that differ in their random seed alone, from their Gram banks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

from lightning_cka.compare.bank_series import BankSource
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.decisions.compare_many import Models
from lightning_cka.hsic.check_measures import OneMeasure, measures_of_features
from lightning_cka.hsic.kernels import Kernel
from lightning_cka.hsic.measure import Measure
from lightning_cka.probe.layers import Layers
from lightning_cka.probe.sample_selection import Exclude, SampleSelection


def seed_ceiling(
    banks: Sequence[BankSource],
    layers: Layers = None,
    *,
    measure: OneMeasure = "cka",
    kernel: Kernel = "linear",
    unbiased: bool = True,
    pair: Literal["name", "position"] = "name",
    exclude: Exclude = None,
    progress_bar: bool = True,
) -> SeedCeiling:
    """Return the CKA that trainings reach that differ in their random seed alone, for each layer.

    It tells whether a CKA is high: independent layers have an unbiased CKA of 0 on average, and two networks that learn
    the same in their own way have this one. Paper: Kornblith et al. 2019, https://arxiv.org/abs/1905.00414, who compare
    networks of different seeds.

    Args:
        banks: Banks of one architecture on one probe set, trained with different seeds; their files, or folders of runs
            of ``CKAMonitor(save_banks=True)``, whose last banks are taken. At least two; an interval needs three.
        layers: Patterns of layer names; None: all layers that all banks have.
        measure: As for `compare_many`.
        kernel: As for `compare_many`.
        unbiased: As for `compare_many`.
        pair: As for `compare_many`.
        exclude: As for `compare_many`.
        progress_bar: Whether to show a progress bar.

    Raises:
        ValueError: As for `compare_many`.
        TypeError: As for `compare_many`.
        FileNotFoundError: A file or folder does not exist.

    Example:
        >>> import torch
        >>> from lightning_cka import GramBank, seed_ceiling
        >>> _ = torch.manual_seed(0)
        >>> batches = [torch.randn(64, 16) for _ in range(8)]
        >>> nets = [torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU()) for _ in range(4)]
        >>> banks = [GramBank.from_model(net, batches, progress_bar=False) for net in nets]
        >>> ceiling = seed_ceiling(banks, progress_bar=False)
        >>> ceiling.layers, ceiling.num_seeds, ceiling.chance
        (('0',), 4, 0.0)
        >>> low, high = ceiling.bounds()
        >>> bool(low < ceiling.values < high)
        True
    """
    chosen = measures_of_features(measure, kernel, unbiased=unbiased)
    models = Models.of(banks)
    found = models.compared(layers, chosen, SampleSelection(exclude, None), pair=pair, progress_bar=progress_bar)
    comparison = next(iter(found.values()))
    for message in comparison.problems():
        warnings.warn(message, stacklevel=2)
    return SeedCeiling.of(comparison)


def ceilings_of(
    models: Models, layers: Layers, measures: Mapping[str, Measure], selection: SampleSelection
) -> dict[str, SeedCeiling]:
    """Return the ceiling of models that differ in their seed alone, by measure."""
    found = models.compared(layers, measures, selection)
    return {name: SeedCeiling.of(comparison) for name, comparison in found.items()}
