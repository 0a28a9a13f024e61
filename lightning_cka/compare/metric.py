"""`MinibatchCKA`: HSIC sums of all pairs of layers, accumulated over batches and processes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn

from lightning_cka.compare.inputs import Features, batch_size, layer_names, ordered
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.hsic.kernel_grams import apply_kernel, median_squared_distances
from lightning_cka.hsic.kernels import Kernel, kernel_name, needs_median, resolve_kernel
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.products import hsic_products
from lightning_cka.hsic.stack import pack_features, pack_precomputed
from lightning_cka.hsic.uncertainty import delta_method_error
from lightning_cka.runtime.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class MinibatchCKA(Metric):
    """CKA between all pairs of layers, from mini-batches.

    Sums the unbiased HSIC over batches and divides once, so that neither the number of batches nor
    that of processes matters. Batches are weighted by n(n-3). Source: Nguyen et al. 2020
    (https://arxiv.org/abs/2010.15327); the standard error is the delta method's, over batches.

    Args:
        layers: how many layers, or their names.
        reference_layers: of the other model, how many or their names; None: as ``layers``.
        kernel: "linear"; "rbf" or `lightning_cka.kernels.RBF`, whose bandwidths the first batch fixes (each
            process's own, of several: a warning tells by how much they differ); "distance"; a function of ``(n, n)``
            squared distances; or "precomputed" (`update` then takes ``(n, n)`` Gram matrices).
        unbiased: False takes the biased HSIC (HSIC_0), for comparison with papers that do. Its values depend
            on the batch size: do not compare them across batch sizes.
        return_standard_error: `compute` gives ``(matrix, standard_error)``.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: no layers, duplicate names, or an unknown kernel.

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

    pair_sum: Tensor
    """(L, R): sum over batches of C = <U_K, U_L>, from which all else follows."""
    pair_square_sum: Tensor
    """(L, R): sum of C^2."""
    pair_layer_sum: Tensor
    """(L, R): sum of C A, where A = <U_K, U_K>."""
    pair_reference_sum: Tensor
    """(L, R): sum of C B, where B = <U_L, U_L>."""
    layer_reference_sum: Tensor
    """(L, R): sum of A B."""
    layer_sum: Tensor
    """(L,): sum of A."""
    layer_square_sum: Tensor
    """(L,): sum of A^2."""
    reference_sum: Tensor
    """(R,): sum of B."""
    reference_square_sum: Tensor
    """(R,): sum of B^2."""
    weight_sum: Tensor
    """(): sum of the batches' weights w, n(n-3); (n-1)^2 for the biased estimator."""
    weight_square_sum: Tensor
    """(): sum of w^2."""
    layer_medians: Tensor
    """(L,): median squared distances of the first batch, where the kernel needs them; -1 before it."""
    reference_medians: Tensor
    """(R,): likewise."""
    configuration: Tensor
    """(): a constant; a hash of what the metric was made for."""
    num_samples: Tensor
    """(): samples in the sums."""
    num_batches: Tensor
    """(): batches in the sums."""
    num_skipped: Tensor
    """(): batches left out because they had fewer than 4 samples."""

    def __init__(
        self,
        layers: int | Sequence[str],
        reference_layers: int | Sequence[str] | None = None,
        *,
        kernel: Kernel = "linear",
        unbiased: bool = True,
        return_standard_error: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layers = layer_names(layers, "layers")
        self.reference_layers = (
            self.layers if reference_layers is None else layer_names(reference_layers, "reference_layers")
        )
        resolve_kernel(kernel)
        self.kernel = kernel
        self.unbiased = unbiased
        self.return_standard_error = return_standard_error
        shape = (len(self.layers), len(self.reference_layers))
        shapes = {
            **dict.fromkeys(
                ("pair_sum", "pair_square_sum", "pair_layer_sum", "pair_reference_sum", "layer_reference_sum"), shape
            ),
            **dict.fromkeys(("layer_sum", "layer_square_sum"), shape[:1]),
            **dict.fromkeys(("reference_sum", "reference_square_sum"), shape[1:]),
            **dict.fromkeys(("weight_sum", "weight_square_sum"), ()),
        }
        for name, state_shape in shapes.items():
            self.add_state(name, torch.zeros(state_shape, dtype=torch.float64), dist_reduce_fx="sum")
        if needs_median(kernel):
            self.add_state("layer_medians", -torch.ones(shape[0], dtype=torch.float64), dist_reduce_fx=_agreed_medians)
            self.add_state(
                "reference_medians", -torch.ones(shape[1], dtype=torch.float64), dist_reduce_fx=_agreed_medians
            )
        # Tells metrics apart in a MetricCollection, which merges those whose states are equal after one update.
        configuration = repr((self.layers, self.reference_layers, kernel, unbiased)).encode()
        self.add_state("configuration", torch.tensor(zlib.crc32(configuration)), dist_reduce_fx="max")
        for name in ("num_samples", "num_batches", "num_skipped"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def full_state_update(self) -> bool:  # type: ignore[override]  # An attribute there.
        """Whether `forward` must update the sums themselves: only they know the first batch's bandwidths."""
        return needs_median(self.kernel)

    def update(self, features: Features, reference_features: Features | None = None) -> None:
        """Add one batch. A batch of fewer than 4 samples is skipped, and counted.

        Args:
            features: L tensors ``(n, ...)``, in the order of ``layers`` or keyed by their names; Gram
                matrices ``(n, n)`` if ``kernel="precomputed"``; or `PackedGrams`.
            reference_features: R tensors of the same n samples, likewise. None: ``features`` again,
                the CKA within one model.

        Raises:
            ValueError: other layers than the metric was made for, or differing n.
            TypeError: features that are no floating-point tensors.
        """
        # A mapping's order says nothing, so compare nothing until it is in this metric's order.
        x = ordered(features, self.layers, "layers")
        y = None
        if reference_features is not None:
            y = ordered(reference_features, self.reference_layers, "reference_layers")
        elif self.reference_layers != self.layers:
            raise ValueError("reference_features are needed, since reference_layers differ from layers")
        sizes = {batch_size(z) for z in (x, y) if z is not None}
        if len(sizes) > 1:
            raise ValueError(f"features and reference_features must be of one batch, but have n = {sorted(sizes)}")
        n = sizes.pop()
        if n < MIN_SAMPLES:
            self.num_skipped = self.num_skipped + 1
            return
        packed = self._packed(x, "layer_medians")
        other = None if y is None else self._packed(y, "reference_medians")
        if y is None and needs_median(self.kernel):
            self.reference_medians = self.layer_medians
        self.add_products(*hsic_products(packed, other, unbiased=self.unbiased), n)

    def add_products(self, c: Tensor, a: Tensor, b: Tensor, n: int) -> None:
        """Add a batch, given what `lightning_cka.hsic.products.hsic_products` makes of it.

        States are replaced, since one that was made in inference mode cannot be written to.

        Args:
            c: ``(L, R)``.
            a: ``(L,)``.
            b: ``(R,)``.
            n: its number of samples.
        """
        c, a, b = (products.to(self.pair_sum) for products in (c, a, b))
        self.pair_sum = self.pair_sum + c
        self.pair_square_sum = self.pair_square_sum + c * c
        self.pair_layer_sum = self.pair_layer_sum + c * a[:, None]
        self.pair_reference_sum = self.pair_reference_sum + c * b
        self.layer_reference_sum = self.layer_reference_sum + a[:, None] * b
        self.layer_sum = self.layer_sum + a
        self.layer_square_sum = self.layer_square_sum + a * a
        self.reference_sum = self.reference_sum + b
        self.reference_square_sum = self.reference_square_sum + b * b
        weight = n * (n - 3) if self.unbiased else (n - 1) ** 2
        self.weight_sum = self.weight_sum + weight
        self.weight_square_sum = self.weight_square_sum + weight**2
        self.num_samples = self.num_samples + n
        self.num_batches = self.num_batches + 1

    def compute(self) -> Tensor | tuple[Tensor, Tensor]:
        """CKA of all pairs of layers.

        Returns:
            ``(L, R)`` in float64; ``nan``, with a warning that names them, for layers whose activations
            have no variance or are not finite. With ``return_standard_error`` also the standard error,
            ``(L, R)``; ``nan`` for fewer than 2 batches.
        """
        self._warn_of_undefined()
        return (self.matrix(), self.standard_error()) if self.return_standard_error else self.matrix()

    def result(self, **attributes: Any) -> CKAResult:
        """CKA of all pairs of layers with all that is known of it; synced and checked like `compute`.

        Args:
            **attributes: of `CKAResult`, such as ``model_name``.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            self._warn_of_undefined()
            return self.as_result(**attributes)

    def as_result(self, **attributes: Any) -> CKAResult:
        """What `result` gives, of the sums as they are: neither synced nor checked."""
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

    def matrix(self) -> Tensor:
        """CKA ``(L, R)`` in float64, of the sums as they are: neither synced nor checked."""
        return self.pair_sum / (self.layer_sum[:, None] * self.reference_sum).sqrt()

    def standard_error(self) -> Tensor:
        """Standard error ``(L, R)`` of `matrix`, by the delta method over batches; ``nan`` for fewer than 2."""
        error = delta_method_error(
            (self.pair_sum, self.layer_sum, self.reference_sum),
            (self.pair_square_sum, self.layer_square_sum, self.reference_square_sum),
            (self.pair_layer_sum, self.pair_reference_sum, self.layer_reference_sum),
            self.effective_batches(),
        )
        return error.where(self.num_batches > 1, torch.full_like(error, torch.nan))

    def effective_batches(self) -> Tensor:
        """k_eff, the number of batches of equal weight that would tell as much; scalar."""
        return self.weight_sum**2 / self.weight_square_sum

    def _warn_of_undefined(self) -> None:
        for reason, names in self.undefined_layers().items():
            rank_zero_warn(undefined_message(reason, names))
        if self.num_batches == 0 and self.num_skipped > 0:
            rank_zero_warn(f"CKA is nan: all {int(self.num_skipped)} batches had fewer than {MIN_SAMPLES} samples")

    def undefined_layers(self) -> dict[str, list[str]]:
        """Layers whose CKA is ``nan``, by reason; empty before the first batch."""
        medians = (getattr(self, "layer_medians", None), getattr(self, "reference_medians", None))
        return self.undefined_for(*medians)

    def undefined_for(self, layer_medians: Tensor | None, reference_medians: Tensor | None) -> dict[str, list[str]]:
        """The same, for Gram matrices of a kernel whose bandwidths were fixed elsewhere by these medians."""
        undefined: dict[str, list[str]] = {}
        if self.num_batches == 0:
            return undefined
        for names, sums, medians, side in (
            (self.layers, self.layer_sum, layer_medians, ""),
            (self.reference_layers, self.reference_sum, reference_medians, " (reference)"),
        ):
            no_bandwidth = [False] * len(names) if medians is None else (medians == 0).tolist()
            for name, value, flat in zip(names, sums.tolist(), no_bandwidth, strict=True):
                reason = _undefined_reason(value, no_bandwidth=flat)
                if reason is not None and name not in undefined.get(reason, []):
                    undefined.setdefault(reason, []).append(name + side)
        return undefined

    def plot(self, val: Any = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the heatmap.

        Args:
            val: what `compute` or `forward` returned; None: `compute` now.
            ax: where to draw; None: a new figure.

        Returns:
            The figure and the axes.
        """
        from lightning_cka.figures.heatmap import plot_cka

        value = self.compute() if val is None else val
        matrix, error = value if isinstance(value, tuple) else (value, None)
        return plot_cka(CKAResult(matrix, self.layers, self.reference_layers, standard_error=error), ax)

    def _packed(self, features: list[Tensor] | PackedGrams, medians: str) -> PackedGrams:
        """The kernel's Gram matrices; ``medians`` is the state that keeps what the first batch fixes."""
        if isinstance(features, PackedGrams):
            packed = features
        else:
            packed = pack_precomputed(features) if self.kernel == "precomputed" else pack_features(features)
        if not needs_median(self.kernel):
            return apply_kernel(self.kernel, packed)
        if self.num_batches == 0:
            setattr(self, medians, median_squared_distances(packed).to(self.pair_sum))
        return apply_kernel(self.kernel, packed, getattr(self, medians))


def _agreed_medians(of_processes: Tensor) -> Tensor:
    """One median per layer of those ``(W, L)`` that the processes' first batches fixed; -1 where there was no batch."""
    seen = of_processes[(of_processes >= 0).all(1)]
    if len(seen) == 0:
        return of_processes[0]
    spread = float(((seen.amax(0) - seen.amin(0)) / seen.mean(0)).nan_to_num(0.0).amax())
    if spread > 0:
        rank_zero_warn(
            f"the first batches of {len(seen)} processes fixed RBF bandwidths whose squares differ by up to "
            f"{spread:.0%}: CKA mixes them. CKAMonitor, compare_models and kernel='distance' do not"
        )
    return seen[0]


def _undefined_reason(sum_of_squares: float, *, no_bandwidth: bool) -> str | None:
    if sum_of_squares == 0:
        return "whose activations have no variance"
    if isfinite(sum_of_squares):
        return None
    if no_bandwidth:
        return "where most pairs of samples have no distance, which leaves the RBF kernel without a bandwidth"
    return "with NaN or infinite activations, or samples too far out for their precision"


def undefined_message(reason: str, names: list[str]) -> str:
    """The warning of layers that `MinibatchCKA.undefined_layers` gave for that reason."""
    return f"CKA is nan for layers {reason}: {shortened(names)}"
