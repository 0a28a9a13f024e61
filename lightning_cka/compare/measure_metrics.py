"""`MinibatchMutualKNN`, `MinibatchRSA` and `MinibatchRidge`: the siblings of `MinibatchCKA`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from lightning_cka.compare.minibatch_measure import MinibatchMeasure
from lightning_cka.hsic.distance_ranks import RSA
from lightning_cka.hsic.hat_matrices import DEFAULT_ALPHA, Ridge
from lightning_cka.hsic.neighbors import DEFAULT_NEIGHBORS, MutualKNN


class MinibatchMutualKNN(MinibatchMeasure):
    """Mutual nearest neighbours between all pairs of layers, from mini-batches; see `MutualKNN`.

    Args:
        layers: Number of layers, or a container of their names. The names of a set are sorted.
        reference_layers: Number of the reference's layers, or their names; None: the same as ``layers``.
        neighbors: As for `MutualKNN`.
        corrected: As for `MutualKNN`.
        **kwargs: ``return_standard_error`` and arguments of `torchmetrics.Metric`, as for `MinibatchCKA`.

    Raises:
        ValueError: There are no layers, names occur twice, or ``neighbors`` is not between 0 and 1.
        TypeError: ``neighbors`` is not a number.

    Example:
        >>> import torch
        >>> from lightning_cka import MinibatchMutualKNN
        >>> metric = MinibatchMutualKNN(layers=["conv", "head"])
        >>> generator = torch.Generator().manual_seed(0)
        >>> for _ in range(8):
        ...     conv = torch.randn(64, 8, 5, 5, generator=generator)
        ...     metric.update({"conv": conv, "head": conv.mean((2, 3))})
        >>> metric.compute().shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        layers: int | Collection[str],
        reference_layers: int | Collection[str] | None = None,
        *,
        neighbors: float = DEFAULT_NEIGHBORS,
        corrected: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(layers, reference_layers, measure=MutualKNN(neighbors, corrected), **kwargs)


class MinibatchRSA(MinibatchMeasure):
    """Spearman RSA between all pairs of layers, from mini-batches; see `RSA`.

    Args:
        layers: Number of layers, or a container of their names. The names of a set are sorted.
        reference_layers: Number of the reference's layers, or their names; None: the same as ``layers``.
        **kwargs: ``return_standard_error`` and arguments of `torchmetrics.Metric`, as for `MinibatchCKA`.

    Raises:
        ValueError: There are no layers, or names occur twice.
    """

    def __init__(
        self, layers: int | Collection[str], reference_layers: int | Collection[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(layers, reference_layers, measure=RSA(), **kwargs)


class MinibatchRidge(MinibatchMeasure):
    """CKA of hat matrices between all pairs of layers, from mini-batches; see `Ridge`.

    Args:
        layers: Number of layers, or a container of their names. The names of a set are sorted.
        reference_layers: Number of the reference's layers, or their names; None: the same as ``layers``.
        alpha: As for `Ridge`.
        **kwargs: ``return_standard_error`` and arguments of `torchmetrics.Metric`, as for `MinibatchCKA`.

    Raises:
        ValueError: There are no layers, names occur twice, or ``alpha`` is not between 0 and 1.
        TypeError: ``alpha`` is not a number.
    """

    def __init__(
        self,
        layers: int | Collection[str],
        reference_layers: int | Collection[str] | None = None,
        *,
        alpha: float = DEFAULT_ALPHA,
        **kwargs: Any,
    ) -> None:
        super().__init__(layers, reference_layers, measure=Ridge(alpha), **kwargs)
