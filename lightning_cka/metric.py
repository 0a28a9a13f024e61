"""`MinibatchCKA`: HSIC sums of all pairs of layers, accumulated over batches and processes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn

from lightning_cka.functional import MIN_SAMPLES
from lightning_cka.grams import Workspace, lower_gram
from lightning_cka.kernels import resolve_kernel
from lightning_cka.layers import shortened
from lightning_cka.packed import (
    PackedGrams,
    empty_packed,
    half_vectors,
    pack,
    pack_stack,
    pair_products,
    squared_norms,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Features = Sequence[Tensor] | Mapping[str, Tensor] | PackedGrams


class MinibatchCKA(Metric):
    """CKA between all pairs of layers, from mini-batches.

    Sums the unbiased HSIC over batches and divides once, so that neither the number of batches nor
    that of processes matters. Batches are weighted by n(n-3). Source: Nguyen et al. 2020
    (https://arxiv.org/abs/2010.15327); the standard error is the delta method's, over batches.

    Args:
        layers: how many layers, or their names.
        reference_layers: of the other model, how many or their names; None: as ``layers``.
        kernel: "linear", or "precomputed" (`update` then takes ``(n, n)`` Gram matrices).
        unbiased: False takes the biased HSIC, for comparison with papers that do. Its values depend
            on the batch size.
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

    full_state_update = False
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
    """(): sum of w = n(n-3)."""
    weight_square_sum: Tensor
    """(): sum of w^2."""
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
        kernel: str = "linear",
        unbiased: bool = True,
        return_standard_error: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layers = _layer_names(layers, "layers")
        self.reference_layers = (
            self.layers if reference_layers is None else _layer_names(reference_layers, "reference_layers")
        )
        self.kernel = kernel
        self._kernel = resolve_kernel(kernel)
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
        # Tells metrics apart in a MetricCollection, which merges those whose states are equal after one update.
        configuration = repr((self.layers, self.reference_layers, kernel, unbiased)).encode()
        self.add_state("configuration", torch.tensor(zlib.crc32(configuration)), dist_reduce_fx="max")
        for name in ("num_samples", "num_batches", "num_skipped"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

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
        x = self._ordered(features, self.layers, "layers")
        y = None
        if reference_features is not None:
            y = self._ordered(reference_features, self.reference_layers, "reference_layers")
        elif self.reference_layers != self.layers:
            raise ValueError("reference_features are needed, since reference_layers differ from layers")
        sizes = {_batch_size(z) for z in (x, y) if z is not None}
        if len(sizes) > 1:
            raise ValueError(f"features and reference_features must be of one batch, but have n = {sorted(sizes)}")
        n = sizes.pop()
        if n < MIN_SAMPLES:
            self.num_skipped = self.num_skipped + 1
            return
        packed = self._packed(x)
        self._accumulate(packed, packed if y is None else self._packed(y))

    def _accumulate(self, x: PackedGrams, y: PackedGrams) -> None:
        """Add a batch. States are replaced, since one that was made in inference mode cannot be written to."""
        n = x.num_samples
        x_vectors = half_vectors(x, unbiased=self.unbiased)
        y_vectors = x_vectors if y is x else half_vectors(y, unbiased=self.unbiased)
        x_scales, y_scales = (grams.scales.to(self.pair_sum).square() for grams in (x, y))
        c = pair_products(x_vectors, y_vectors).to(self.pair_sum) * x_scales[:, None] * y_scales
        # Within one model, take A from C itself: only then is the diagonal exactly 1.
        a = c.diagonal() if y is x else squared_norms(x_vectors).to(c) * x_scales**2
        b = a if y is x else squared_norms(y_vectors).to(c) * y_scales**2
        self.pair_sum = self.pair_sum + c
        self.pair_square_sum = self.pair_square_sum + c * c
        self.pair_layer_sum = self.pair_layer_sum + c * a[:, None]
        self.pair_reference_sum = self.pair_reference_sum + c * b
        self.layer_reference_sum = self.layer_reference_sum + a[:, None] * b
        self.layer_sum = self.layer_sum + a
        self.layer_square_sum = self.layer_square_sum + a * a
        self.reference_sum = self.reference_sum + b
        self.reference_square_sum = self.reference_square_sum + b * b
        weight = n * (n - 3)
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
        for reason, names in self.undefined_layers().items():
            rank_zero_warn(undefined_message(reason, names))
        if self.num_batches == 0 and self.num_skipped > 0:
            rank_zero_warn(f"CKA is nan: all {int(self.num_skipped)} batches had fewer than {MIN_SAMPLES} samples")
        return (self.matrix(), self.standard_error()) if self.return_standard_error else self.matrix()

    def matrix(self) -> Tensor:
        """CKA ``(L, R)`` in float64, of the sums as they are: neither synced nor checked."""
        return self.pair_sum / (self.layer_sum[:, None] * self.reference_sum).sqrt()

    def standard_error(self) -> Tensor:
        """Standard error ``(L, R)`` of `matrix`, by the delta method over batches; ``nan`` for fewer than 2."""
        a, b = self.layer_sum[:, None], self.reference_sum
        norms = (a * b).sqrt()
        matrix = self.matrix()
        effective_batches = self.weight_sum**2 / self.weight_square_sum
        relative = (
            self.layer_square_sum[:, None] / (4 * a**2)
            + self.reference_square_sum / (4 * b**2)
            + self.layer_reference_sum / (2 * a * b)
        )
        cross = self.pair_layer_sum / a + self.pair_reference_sum / b
        variance = self.pair_square_sum / norms**2 + matrix**2 * relative - matrix * cross / norms
        # A sum of squares in exact arithmetic, so that below zero it is zero but for rounding.
        variance = variance.where(~(variance < 0), torch.zeros_like(variance))
        error = (effective_batches / (effective_batches - 1) * variance).sqrt()
        return error.where(self.num_batches > 1, torch.full_like(error, torch.nan))

    def undefined_layers(self) -> dict[str, list[str]]:
        """Layers whose CKA is ``nan``, by reason; empty before the first batch."""
        if self.num_batches == 0:
            return {}
        layer_sums = dict(zip(self.layers, self.layer_sum.tolist(), strict=True))
        reference_sums = dict(zip(self.reference_layers, self.reference_sum.tolist(), strict=True))
        reasons: dict[str, Callable[[float], bool]] = {
            "whose activations have no variance": lambda value: value == 0,
            "with NaN or infinite activations": lambda value: not isfinite(value),
        }
        undefined = {}
        for reason, applies in reasons.items():
            names = [name for name, value in layer_sums.items() if applies(value)]
            names += [f"{n} (reference)" for n, value in reference_sums.items() if applies(value) and n not in names]
            if names:
                undefined[reason] = names
        return undefined

    def plot(self, val: Any = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the heatmap.

        Args:
            val: what `compute` or `forward` returned; None: `compute` now.
            ax: where to draw; None: a new figure.

        Returns:
            The figure and the axes.
        """
        from lightning_cka.plotting import plot_cka
        from lightning_cka.result import CKAResult

        value = self.compute() if val is None else val
        matrix, error = value if isinstance(value, tuple) else (value, None)
        return plot_cka(CKAResult(matrix, self.layers, self.reference_layers, standard_error=error), ax)

    def _ordered(self, features: Features, names: tuple[str, ...], argument: str) -> list[Tensor] | PackedGrams:
        if isinstance(features, PackedGrams):
            count = len(features.halves)
        else:
            if isinstance(features, Mapping):
                missing, unexpected = set(names) - set(features), set(features) - set(names)
                if missing or unexpected:
                    raise ValueError(
                        f"{argument} must be the mapping's keys at each update; "
                        f"missing: {sorted(missing)}, unexpected: {sorted(unexpected)}"
                    )
                features = [features[name] for name in names]
            count = len(features)
        if count != len(names):
            raise ValueError(f"expected features of {len(names)} {argument}, but got {count}")
        return features if isinstance(features, PackedGrams) else list(features)

    def _packed(self, features: list[Tensor] | PackedGrams) -> PackedGrams:
        return self._kernel(features if isinstance(features, PackedGrams) else self._reduced(features))

    def _reduced(self, features: list[Tensor]) -> PackedGrams:
        dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in features) else torch.float32
        if self.kernel == "precomputed":
            for gram in features:
                if gram.shape != (len(gram), len(gram)):
                    raise ValueError(f"kernel='precomputed' takes (n, n) Gram matrices, but got {tuple(gram.shape)}")
                if not torch.allclose(gram, gram.T, rtol=1e-3, atol=1e-3 * float(gram.abs().max()), equal_nan=True):
                    raise ValueError("kernel='precomputed' takes symmetric Gram matrices, but got one that is not")
            return pack_stack(torch.stack([gram.to(dtype) for gram in features]))
        workspace, device = Workspace(), features[0].device
        packed = empty_packed(len(features), len(features[0]), dtype=dtype, device=device, workspace=workspace)
        for layer, tensor in enumerate(features):
            gram, scale = lower_gram(tensor, workspace)
            pack(gram.to(packed.halves), scale, out=packed, layer=layer)
        return packed


def undefined_message(reason: str, names: list[str]) -> str:
    """The warning of layers that `MinibatchCKA.undefined_layers` gave for that reason."""
    return f"CKA is nan for layers {reason}: {shortened(names)}"


def _layer_names(layers: int | Sequence[str], argument: str) -> tuple[str, ...]:
    names = tuple(str(i) for i in range(layers)) if isinstance(layers, int) else tuple(layers)
    if not names or isinstance(layers, str):
        raise ValueError(f"{argument} must be a positive number or a sequence of names, but is {layers!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"{argument} must have distinct names, but are {list(names)}")
    return names


def _batch_size(features: list[Tensor] | PackedGrams) -> int:
    if isinstance(features, PackedGrams):
        return features.num_samples
    for tensor in features:
        if not isinstance(tensor, Tensor) or tensor.ndim == 0:
            raise ValueError(f"features must be tensors of shape (n, ...), but one is {tensor!r}")
    sizes = [len(tensor) for tensor in features]
    if len(set(sizes)) > 1:
        raise ValueError(f"all layers must have the same batch size in one update, but have n = {sizes}")
    return sizes[0]
