"""`SimilaritySums`: sums over batches, from which a similarity of layers and its standard error follow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_cka.compare.inputs import layer_names
from lightning_cka.hsic.measure import Measure
from lightning_cka.hsic.standard_error import delta_method_error

_PAIR_STATES = ("pair_sum", "pair_square_sum", "pair_layer_sum", "pair_reference_sum", "layer_reference_sum")
_LAYER_STATES = ("layer_sum", "layer_square_sum")
_REFERENCE_STATES = ("reference_sum", "reference_square_sum")
_WEIGHT_STATES = ("weight_sum", "weight_square_sum")
_COUNT_STATES = ("num_samples", "num_batches", "num_skipped")


class SimilaritySums(Metric):
    """Base class of `MinibatchCKA` and its siblings: the sums for all pairs of L layers and R reference layers.

    For each batch, C = <v, w>, A = <v, v> and B = <w, w>, where v and w are the vectors of two layers; see `Measure`.
    For CKA, these are the unnormalised HSIC of two layers and of each layer with itself. The similarity is the ratio of
    sums S_C / sqrt(S_A S_B). Summing without normalising weights a batch of n samples by `Measure.weight`; for CKA,
    that is what its estimator divides by: n(n-3), or (n-1)^2 for the biased one (Gretton et al. 2005,
    https://doi.org/10.1007/11564089_7). All sums are float64 states of fixed shape. They stay float64 when a module
    that holds the metric is converted, for example by ``.to(torch.bfloat16)``.

    Args:
        layers: Number of layers, or a container of their names. The names of a set are sorted.
        reference_layers: Number of the reference's layers, or their names; None: the same as ``layers``.
        measure: Makes vectors of Gram matrices.
        **kwargs: Arguments of `torchmetrics.Metric`.
    """

    pair_sum: Tensor
    """Sum over batches of C, ``(L, R)``."""
    pair_square_sum: Tensor
    """Sum of C^2, ``(L, R)``."""
    pair_layer_sum: Tensor
    """Sum of C A, ``(L, R)``."""
    pair_reference_sum: Tensor
    """Sum of C B, ``(L, R)``."""
    layer_reference_sum: Tensor
    """Sum of A B, ``(L, R)``."""
    layer_sum: Tensor
    """Sum of A, ``(L,)``."""
    layer_square_sum: Tensor
    """Sum of A^2, ``(L,)``."""
    reference_sum: Tensor
    """Sum of B, ``(R,)``."""
    reference_square_sum: Tensor
    """Sum of B^2, ``(R,)``."""
    weight_sum: Tensor
    """Sum of the batch weights w, a scalar."""
    weight_square_sum: Tensor
    """Sum of w^2, a scalar."""
    num_samples: Tensor
    """Number of samples in the sums, a scalar."""
    num_batches: Tensor
    """Number of batches in the sums, a scalar."""
    num_skipped: Tensor
    """Number of batches that were skipped because they had fewer than 4 samples, a scalar."""

    def __init__(
        self,
        layers: int | Collection[str],
        reference_layers: int | Collection[str] | None,
        measure: Measure,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.measure = measure
        self.layers = layer_names(layers, "layers")
        self.reference_layers = (
            self.layers if reference_layers is None else layer_names(reference_layers, "reference_layers")
        )
        rows, columns = len(self.layers), len(self.reference_layers)
        for names, shape in (
            (_PAIR_STATES, (rows, columns)),
            (_LAYER_STATES, (rows,)),
            (_REFERENCE_STATES, (columns,)),
            (_WEIGHT_STATES, ()),
        ):
            for name in names:
                self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        for name in _COUNT_STATES:
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        """Move the states as ``fn`` does, but keep their dtypes: sums of many batches need float64."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, exclude_state)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Load the states, which may have been converted, in their own dtypes."""
        super()._load_from_state_dict(*args, **kwargs)
        for name, default in self._defaults.items():
            state = getattr(self, name)
            if isinstance(state, Tensor) and isinstance(default, Tensor):
                setattr(self, name, state.to(default.dtype))

    def add_products(self, c: Tensor, a: Tensor, b: Tensor, n: int) -> None:
        """Add the products of one batch, as returned by `lightning_cka.hsic.measure.Vectors.products`.

        Args:
            c: Product of each pair of layers, ``(L, R)``.
            a: Product of each layer with itself, ``(L,)``.
            b: Product of each reference layer with itself, ``(R,)``.
            n: Number of samples in the batch.
        """
        c, a, b = (products.to(self.pair_sum) for products in (c, a, b))
        # States are replaced: a state that was made in inference mode cannot be updated in place outside it.
        self.pair_sum = self.pair_sum + c
        self.pair_square_sum = self.pair_square_sum + c * c
        self.pair_layer_sum = self.pair_layer_sum + c * a[:, None]
        self.pair_reference_sum = self.pair_reference_sum + c * b
        self.layer_reference_sum = self.layer_reference_sum + a[:, None] * b
        self.layer_sum = self.layer_sum + a
        self.layer_square_sum = self.layer_square_sum + a * a
        self.reference_sum = self.reference_sum + b
        self.reference_square_sum = self.reference_square_sum + b * b
        weight = self.measure.weight(n)
        self.weight_sum = self.weight_sum + weight
        self.weight_square_sum = self.weight_square_sum + weight**2
        self.num_samples = self.num_samples + n
        self.num_batches = self.num_batches + 1

    def matrix(self) -> Tensor:
        """Return the similarity ``(L, R)`` in float64, without synchronizing or checking the sums."""
        return self.pair_sum / (self.layer_sum[:, None] * self.reference_sum).sqrt()

    def standard_error(self) -> Tensor:
        """Return the standard error ``(L, R)`` of `matrix`, by the delta method over batches.

        It is ``nan`` for fewer than 2 batches.
        """
        error = delta_method_error(
            (self.pair_sum, self.layer_sum, self.reference_sum),
            (self.pair_square_sum, self.layer_square_sum, self.reference_square_sum),
            (self.pair_layer_sum, self.pair_reference_sum, self.layer_reference_sum),
            self.effective_batches(),
        )
        return error.where(self.num_batches > 1, torch.full_like(error, torch.nan))

    def effective_batches(self) -> Tensor:
        """Return k_eff, a scalar: the number of batches of equal weight with the same variance."""
        return self.weight_sum**2 / self.weight_square_sum
