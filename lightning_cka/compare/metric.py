"""`MinibatchCKA`: CKA between all pairs of layers, accumulated over batches and processes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from lightning_cka.compare.bandwidths import agreed_medians
from lightning_cka.compare.inputs import Features
from lightning_cka.compare.minibatch_measure import MinibatchMeasure, Side
from lightning_cka.hsic.kernel_grams import median_squared_distances
from lightning_cka.hsic.kernels import Kernel, resolve_kernel
from lightning_cka.hsic.measure import CKA
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.products import Vectors
from lightning_cka.hsic.stack import pack_precomputed


class MinibatchCKA(MinibatchMeasure):
    """CKA between all pairs of layers, from mini-batches (Nguyen et al. 2020, https://arxiv.org/abs/2010.15327).

    The metric sums HSIC over batches, weighted by n(n-3), and divides once at the end. The result therefore does not
    depend on how many processes share the batches. The metric keeps sums only, so the standard error comes from the
    delta method over batches. Where single samples dominate, it is too small. `compare_models`, `compare_banks` and
    `CKAMonitor` use a jackknife.

    Args:
        layers: Number of layers, or a container of their names. The names of a set are sorted.
        reference_layers: Number of the reference's layers, or their names; None: the same as ``layers``.
        kernel: "linear", "rbf", `lightning_cka.kernels.RBF`, "distance", a function of ``(n, n)`` squared distances, or
            "precomputed" (`update` then takes ``(n, n)`` Gram matrices). The metric streams, so its first batch fixes
            the bandwidths of an RBF kernel, while comparisons of banks use all batches. Standard errors do not contain
            the noise of these bandwidths. With several processes, each one fixes its own, and a warning says by how
            much they differ.
        unbiased: Whether to use the unbiased HSIC. False selects the biased HSIC (HSIC_0) that some papers report. Its
            values depend on the batch size; do not compare them across batch sizes.
        return_standard_error: Whether `compute` returns ``(matrix, standard_error)`` instead of the matrix alone.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: There are no layers, names occur twice, or the kernel is unknown.
        TypeError: The kernel is neither a name nor a function.

    Example:
        >>> import torch
        >>> from lightning_cka import MinibatchCKA
        >>> metric = MinibatchCKA(layers=["conv", "head"])
        >>> generator = torch.Generator().manual_seed(0)
        >>> for _ in range(8):
        ...     conv = torch.randn(64, 8, 5, 5, generator=generator)
        ...     metric.update({"conv": conv, "head": conv.mean((2, 3))})
        >>> metric.compute().round(decimals=2)
        tensor([[1.0000, 0.2000],
                [0.2000, 1.0000]], dtype=torch.float64)
    """

    layer_medians: Tensor
    """Median squared distances of the first batch, ``(L,)``, if the kernel needs them; -1 before the first batch."""
    reference_medians: Tensor
    """Median squared distances of the reference's first batch, ``(R,)``, if the kernel needs them; -1 before it."""

    def __init__(
        self,
        layers: int | Collection[str],
        reference_layers: int | Collection[str] | None = None,
        *,
        kernel: Kernel = "linear",
        unbiased: bool = True,
        return_standard_error: bool = False,
        **kwargs: Any,
    ) -> None:
        resolve_kernel(kernel)
        measure = CKA(kernel, unbiased)
        super().__init__(
            layers, reference_layers, measure=measure, return_standard_error=return_standard_error, **kwargs
        )
        self.kernel = kernel
        self.unbiased = unbiased
        if measure.needs_median:
            for name, count in (
                ("layer_medians", len(self.layers)),
                ("reference_medians", len(self.reference_layers)),
            ):
                self.add_state(name, -torch.ones(count, dtype=torch.float64), dist_reduce_fx=agreed_medians)

    @property
    def full_state_update(self) -> bool:  # type: ignore[override]  # A class attribute in torchmetrics.
        """Whether `forward` updates the sums directly, which a kernel with bandwidths of the first batch requires."""
        return self.measure.needs_median

    def update(self, features: Features, reference_features: Features | None = None) -> None:
        """Add one batch of n samples; see `MinibatchMeasure.update`."""
        super().update(features, reference_features)
        if reference_features is None and self.measure.needs_median:
            self.reference_medians = self.layer_medians

    def _vectors(self, features: list[Tensor] | PackedGrams, side: Side) -> Vectors:
        """Return the vectors of one batch, or of Gram matrices that a user computed."""
        if self.kernel == "precomputed" and not isinstance(features, PackedGrams):
            features = pack_precomputed(features)
        return super()._vectors(features, side)

    def _medians(self, linear: PackedGrams, side: Side) -> Tensor | None:
        """Return the medians that fix bandwidths. The first batch sets them for each side."""
        if not self.measure.needs_median:
            return None
        name = f"{side}_medians"
        if self.num_batches == 0:
            setattr(self, name, median_squared_distances(linear).to(self.pair_sum))
        medians: Tensor = getattr(self, name)
        return medians

    def _fixed_medians(self) -> tuple[Tensor, Tensor] | None:
        return (self.layer_medians, self.reference_medians) if self.measure.needs_median else None
