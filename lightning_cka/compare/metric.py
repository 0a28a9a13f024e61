"""`MinibatchCKA`: CKA between all pairs of layers, accumulated over batches and processes."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from lightning_cka.compare.bandwidths import agreed_medians
from lightning_cka.compare.hsic_sums import HSICSums
from lightning_cka.compare.inputs import Features, common_batch_size, in_layer_order
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.undefined_layers import merge_sides, undefined_layers, undefined_message
from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.hsic.kernel_grams import apply_kernel, lacks_digits, median_squared_distances
from lightning_cka.hsic.kernels import Kernel, kernel_name, needs_median, resolve_kernel
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.products import hsic_products
from lightning_cka.hsic.stack import pack_features, pack_precomputed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class MinibatchCKA(HSICSums):
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

    is_differentiable = False
    higher_is_better = None
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    layer_medians: Tensor
    """Median squared distances of the first batch, ``(L,)``, if the kernel needs them; -1 before the first batch."""
    reference_medians: Tensor
    """Median squared distances of the reference's first batch, ``(R,)``, if the kernel needs them; -1 before it."""
    configuration: Tensor
    """Hash of the metric's arguments, a constant scalar."""

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
        super().__init__(layers, reference_layers, unbiased=unbiased, **kwargs)
        resolve_kernel(kernel)
        self.kernel = kernel
        self.return_standard_error = return_standard_error
        if needs_median(kernel):
            for name, count in (
                ("layer_medians", len(self.layers)),
                ("reference_medians", len(self.reference_layers)),
            ):
                self.add_state(name, -torch.ones(count, dtype=torch.float64), dist_reduce_fx=agreed_medians)
        # A MetricCollection merges metrics whose states are equal after one update; this state keeps others apart.
        configuration = repr((self.layers, self.reference_layers, kernel, unbiased)).encode()
        self.add_state("configuration", torch.tensor(zlib.crc32(configuration)), dist_reduce_fx="max")

    @property
    def full_state_update(self) -> bool:  # type: ignore[override]  # A class attribute in torchmetrics.
        """Whether `forward` updates the sums directly, which a kernel with bandwidths of the first batch requires."""
        return needs_median(self.kernel)

    def update(self, features: Features, reference_features: Features | None = None) -> None:
        """Add one batch of n samples. A batch of fewer than 4 samples is skipped and counted.

        Args:
            features: L tensors or NumPy arrays ``(n, ...)``, in the order of ``layers`` or keyed by their names;
                symmetric Gram matrices ``(n, n)`` if ``kernel="precomputed"``; or `PackedGrams`.
            reference_features: R tensors of the same n samples, in the order of ``reference_layers`` or keyed by their
                names. None compares ``features`` with themselves: CKA within one model.

        Raises:
            ValueError: The features belong to other layers than the metric's, or differ in n.
            TypeError: The features are not floating-point tensors.
        """
        x = in_layer_order(features, self.layers, "layers")
        if reference_features is not None:
            y = in_layer_order(reference_features, self.reference_layers, "reference_layers")
        elif self.reference_layers == self.layers:
            y = None
        else:
            raise ValueError("reference_features are needed, since reference_layers differ from layers")
        n = common_batch_size(x, y)
        if n < MIN_SAMPLES:
            self.num_skipped = self.num_skipped + 1
            return
        grams = self._grams(x, "layer_medians")
        reference_grams = None if y is None else self._grams(y, "reference_medians")
        if y is None and needs_median(self.kernel):
            self.reference_medians = self.layer_medians
        self.add_products(*hsic_products(grams, reference_grams, unbiased=self.unbiased), n)

    def compute(self) -> Tensor | tuple[Tensor, Tensor]:
        """Return CKA of all pairs of layers.

        Returns:
            ``(L, R)`` in float64, in [-1, 1]. Layers without variance or with values that are not finite are ``nan``,
            and a warning names them. With ``return_standard_error``, also the standard error ``(L, R)``, which is
            ``nan`` for fewer than 2 batches.
        """
        self._warn_about_undefined()
        return (self.matrix(), self.standard_error()) if self.return_standard_error else self.matrix()

    def result(self, **attributes: Any) -> CKAResult:
        """Return a `CKAResult`, synchronized and checked as by `compute`.

        Args:
            **attributes: Attributes of `CKAResult`, such as ``model_name``.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            self._warn_about_undefined()
            return self.as_result(**attributes)

    def as_result(self, **attributes: Any) -> CKAResult:
        """Return a `CKAResult` of the current sums, without synchronizing or checking them.

        Args:
            **attributes: Attributes of `CKAResult`, such as ``model_name``.
        """
        attributes = {"kernel": kernel_name(self.kernel), **attributes}
        return CKAResult(
            self.matrix(),
            self.layers,
            self.reference_layers,
            self.standard_error(),
            effective_batches=float(self.effective_batches()) if self.num_batches else None,
            num_samples=int(self.num_samples),
            num_batches=int(self.num_batches),
            unbiased=self.unbiased,
            **attributes,
        )

    def undefined_layers(
        self,
        layer_medians: Tensor | None = None,
        reference_medians: Tensor | None = None,
        layer_reasons: Mapping[str, str] | None = None,
        reference_reasons: Mapping[str, str] | None = None,
    ) -> dict[str, list[str]]:
        """Return the names of the layers whose CKA is ``nan``, by reason; empty before the first batch.

        Args:
            layer_medians: Median squared distances ``(L,)`` that fixed the bandwidths of precomputed Gram matrices;
                None: those of this metric, if its kernel has a bandwidth.
            reference_medians: Median squared distances ``(R,)`` of the reference; None: those of this metric.
            layer_reasons: Reasons that are already known, by layer name.
            reference_reasons: Those of the reference's layers.
        """
        if self.num_batches == 0:
            return {}
        if needs_median(self.kernel):
            layer_medians, reference_medians = self.layer_medians, self.reference_medians
        return merge_sides(
            undefined_layers(self.layers, self.layer_sum, layer_medians, layer_reasons),
            undefined_layers(self.reference_layers, self.reference_sum, reference_medians, reference_reasons),
        )

    def plot(self, val: Any = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the heatmap.

        Args:
            val: Return value of `compute` or `forward`; None: call `compute`.
            ax: Axes to draw in; None: a new figure.

        Returns:
            The figure and the axes.
        """
        from lightning_cka.figures.heatmap import plot_cka

        value = self.compute() if val is None else val
        matrix, error = value if isinstance(value, tuple) else (value, None)
        return plot_cka(CKAResult(matrix, self.layers, self.reference_layers, standard_error=error), ax)

    def _warn_about_undefined(self) -> None:
        for reason, names in self.undefined_layers().items():
            rank_zero_warn(undefined_message(reason, names))
        if self.num_batches == 0 and self.num_skipped > 0:
            rank_zero_warn(f"CKA is nan: all {int(self.num_skipped)} batches had fewer than {MIN_SAMPLES} samples")

    def _grams(self, features: list[Tensor] | PackedGrams, medians: str) -> PackedGrams:
        """Return the kernel's Gram matrices. The first batch sets the state named ``medians``, later ones use it."""
        if isinstance(features, PackedGrams):
            return self._kernel_grams(features, medians)
        if self.kernel == "precomputed":
            return pack_precomputed(features)
        linear = pack_features(features)
        grams = self._kernel_grams(linear, medians)
        if lacks_digits(grams, linear):
            return self._kernel_grams(pack_features(features, torch.float64), medians)
        return grams

    def _kernel_grams(self, linear: PackedGrams, medians: str) -> PackedGrams:
        if not needs_median(self.kernel):
            return apply_kernel(self.kernel, linear, unbiased=self.unbiased)
        if self.num_batches == 0:
            setattr(self, medians, median_squared_distances(linear).to(self.pair_sum))
        return apply_kernel(self.kernel, linear, getattr(self, medians), unbiased=self.unbiased)
