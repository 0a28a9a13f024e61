"""`MinibatchMeasure`: base of the metrics that compare all pairs of layers, accumulated over batches and processes."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from lightning_cka.compare.inputs import Features, common_batch_size, in_layer_order
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.similarity_sums import SimilaritySums
from lightning_cka.compare.undefined_layers import merge_sides, undefined_layers, undefined_message
from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.hsic.kernel_grams import lacks_digits
from lightning_cka.hsic.measure import Measure
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.products import Vectors
from lightning_cka.hsic.stack import pack_features

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Side = Literal["layer", "reference"]


class MinibatchMeasure(SimilaritySums):
    """Similarity of all pairs of layers by one measure, from mini-batches.

    The metric sums over batches and divides once at the end. The result therefore does not depend on how many processes
    share the batches. The metric keeps sums only, so the standard error comes from the delta method over batches. Where
    single samples dominate, it is too small. `compare_models`, `compare_banks` and `CKAMonitor` use a jackknife.

    Args:
        layers: Number of layers, or a container of their names. The names of a set are sorted.
        reference_layers: Number of the reference's layers, or their names; None: the same as ``layers``.
        measure: Makes vectors of Gram matrices.
        return_standard_error: Whether `compute` returns ``(matrix, standard_error)`` instead of the matrix alone.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: There are no layers, or names occur twice.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    configuration: Tensor
    """Hash of the metric's arguments, a constant scalar."""

    def __init__(
        self,
        layers: int | Collection[str],
        reference_layers: int | Collection[str] | None = None,
        *,
        measure: Measure,
        return_standard_error: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(layers, reference_layers, measure=measure, **kwargs)
        self.return_standard_error = return_standard_error
        # A MetricCollection merges metrics whose states are equal after one update; this state keeps others apart.
        configuration = repr((self.layers, self.reference_layers, measure)).encode()
        self.add_state("configuration", torch.tensor(zlib.crc32(configuration)), dist_reduce_fx="max")

    def update(self, features: Features, reference_features: Features | None = None) -> None:
        """Add one batch of n samples. A batch of fewer than 4 samples is skipped and counted.

        Args:
            features: L tensors or NumPy arrays ``(n, ...)``, in the order of ``layers`` or keyed by their names;
                or `PackedGrams`. `MinibatchCKA` takes symmetric Gram matrices ``(n, n)`` if ``kernel="precomputed"``.
            reference_features: R tensors of the same n samples, in the order of ``reference_layers`` or keyed by their
                names. None compares ``features`` with themselves: a model's own layers with each other.

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
        own = self._vectors(x, "layer")
        self.add_products(*own.products(None if y is None else self._vectors(y, "reference")), n)

    def compute(self) -> Tensor | tuple[Tensor, Tensor]:
        """Return the similarity of all pairs of layers.

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
        attributes = self._attributes_of_measure() | attributes
        return CKAResult(
            self.matrix(),
            self.layers,
            self.reference_layers,
            self.standard_error(),
            effective_batches=float(self.effective_batches()) if self.num_batches else None,
            num_samples=int(self.num_samples),
            num_batches=int(self.num_batches),
            **attributes,
        )

    def undefined_layers(
        self,
        layer_medians: Tensor | None = None,
        reference_medians: Tensor | None = None,
        layer_reasons: Mapping[str, str] | None = None,
        reference_reasons: Mapping[str, str] | None = None,
    ) -> dict[str, list[str]]:
        """Return the names of the layers whose similarity is ``nan``, by reason; empty before the first batch.

        Args:
            layer_medians: Median squared distances ``(L,)`` that fixed the bandwidths of Gram matrices; None:
                those of this metric, if its kernel has a bandwidth.
            reference_medians: Median squared distances ``(R,)`` of the reference; None: those of this metric.
            layer_reasons: Reasons that are already known, by layer name.
            reference_reasons: Those of the reference's layers.
        """
        if self.num_batches == 0:
            return {}
        layer_medians, reference_medians = self._fixed_medians() or (layer_medians, reference_medians)
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
        attributes = self._attributes_of_measure()
        return plot_cka(CKAResult(matrix, self.layers, self.reference_layers, standard_error=error, **attributes), ax)

    def _attributes_of_measure(self) -> dict[str, Any]:
        measure = self.measure
        return {"measure": measure.name, "kernel": measure.kernel, "unbiased": measure.is_unbiased}

    def _warn_about_undefined(self) -> None:
        for reason, names in self.undefined_layers().items():
            rank_zero_warn(undefined_message(reason, names, self.measure.title))
        if self.num_batches == 0 and self.num_skipped > 0:
            title, skipped = self.measure.title, int(self.num_skipped)
            rank_zero_warn(f"{title} is nan: all {skipped} batches had fewer than {MIN_SAMPLES} samples")

    def _vectors(self, features: list[Tensor] | PackedGrams, side: Side) -> Vectors:
        """Return the vectors of one batch of the model's features ("layer") or of those of the reference."""
        if isinstance(features, PackedGrams):
            return self._measured(features, side)
        linear = pack_features(features)
        vectors = self._measured(linear, side)
        if lacks_digits(vectors.factors, linear):
            return self._measured(pack_features(features, torch.float64), side)
        return vectors

    def _measured(self, linear: PackedGrams, side: Side) -> Vectors:
        """Return the vectors of linear Gram matrices."""
        return self.measure.vectors(self.measure.grams(linear, self._medians(linear, side)))

    def _medians(self, linear: PackedGrams, side: Side) -> Tensor | None:  # noqa: ARG002  # `MinibatchCKA` needs them.
        """Return the medians that fix bandwidths for this batch; None without bandwidths."""
        return None

    def _fixed_medians(self) -> tuple[Tensor, Tensor] | None:
        """Return the medians that fixed the bandwidths of both sides; None if this metric has not fixed any."""
        return None
