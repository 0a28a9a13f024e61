"""`CKASide`: the centered Gram matrix of one of the two representations that CKA compares on one batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightning_cka.hsic.centering import doubly_centered, u_centered
from lightning_cka.hsic.differentiable import differentiable_gram, needs_gradient
from lightning_cka.hsic.distance_errors import (
    gram_variances,
    hides_digits,
    largest_gram_deviation,
    zero_rounding_errors,
)
from lightning_cka.hsic.grams import full_gram
from lightning_cka.hsic.kernels import RBF, KernelFn
from lightning_cka.hsic.median import median_distance
from lightning_cka.hsic.precision import accumulator_dtype
from lightning_cka.hsic.scaled_kernel import ScaledKernel


@dataclass(frozen=True)
class CKASide:
    """One representation of one batch.

    Args:
        gram: Linear Gram matrix, ``(n, n)``, with the graph of its features; or a Gram matrix that a user computed.
        scale: Scale of the features, a scalar; 0 if they have no variance.
        function: The kernel, as a function of squared distances; None for the linear kernel.
        unbiased: Whether Gram matrices are U-centered; else they are doubly centered.
    """

    gram: Tensor
    scale: Tensor
    function: KernelFn | None
    unbiased: bool

    @classmethod
    def of_features(
        cls, features: Tensor, function: KernelFn | None, *, unbiased: bool, dtype: torch.dtype | None = None
    ) -> CKASide:
        """Return the side of features ``(n, ...)``; ``dtype`` is that of their Gram matrix."""
        compute = differentiable_gram if needs_gradient(features) else full_gram
        return cls(*compute(features, dtype), function, unbiased)

    def with_digits(self, features: Tensor) -> CKASide:
        """Return the side of the same features in float64, if float32 does not have the digits of their distances."""
        # An accelerator would have to wait for this branch.
        if self.function is None or self.gram.dtype != torch.float32 or self.gram.device.type != "cpu":
            return self
        hidden = self._checked[1]
        if hidden is None or not hidden or not self.gram.isfinite().all():
            return self
        return CKASide.of_features(features, self.function, unbiased=self.unbiased, dtype=torch.float64)

    def centered(self) -> Tensor:
        """Return the centered Gram matrix of the kernel in float64, up to a factor; zero without variance."""
        if self.function is None:
            return self._center(self.gram * self.scale.sign()).to(accumulator_dtype(self.gram.device))
        squared = self._squared_distances()
        return self._center(self._kernel(self.function, squared)(squared)[0])

    @property
    def checked(self) -> Tensor:
        """`centered` without a graph; ``nan`` where rounding errors of distances would change CKA."""
        centered, hidden = self._checked
        return centered if hidden is None else centered.where(~hidden, torch.full_like(centered, torch.nan))

    @cached_property
    def _checked(self) -> tuple[Tensor, Tensor | None]:
        """The centered Gram matrix; and whether rounding errors change CKA, ``(1,)``, or None if they do not."""
        side = CKASide(self.gram.detach(), self.scale, self.function, self.unbiased)
        if side.function is None:
            return side.centered(), None
        squared = side._squared_distances()
        kernel = side._kernel(side.function, squared)
        gram = kernel(squared)
        centered = side._center(gram[0])
        diagonal, norm = side.gram.diagonal()[None].to(squared), centered.square().sum()[None]
        hidden = kernel.may_hide_digits(squared, gram, largest_gram_deviation(diagonal, side.gram.dtype), norm)
        if squared.device.type == "cpu" and not hidden:
            return centered, None
        variances = gram_variances(diagonal, side.gram.dtype)
        return centered, hides_digits(kernel, squared, variances, torch.zeros_like(squared), norm)

    def where(self, is_defined: Tensor) -> CKASide:
        """Return this side if CKA is defined; else one with a constant Gram matrix, whose CKA has finite gradients."""
        points = torch.linspace(0, 1, len(self.gram), dtype=self.gram.dtype, device=self.gram.device).square()
        gram = self.gram.where(is_defined, points[:, None] * points)
        return CKASide(gram, self.scale.where(is_defined, torch.ones_like(self.scale)), self.function, self.unbiased)

    def _center(self, gram: Tensor) -> Tensor:
        return u_centered(gram) if self.unbiased else doubly_centered(gram)

    def _squared_distances(self) -> Tensor:
        """Return the squared distances of features / scale, ``(1, n, n)``, in float64."""
        wide = self.gram.to(accumulator_dtype(self.gram.device))
        sums = wide.diagonal()[:, None] + wide.diagonal()
        return zero_rounding_errors(sums - 2 * wide, sums, self.gram.dtype)[None]

    def _kernel(self, function: KernelFn, squared: Tensor) -> ScaledKernel:
        factor = self.scale.to(squared).square()[None]
        return ScaledKernel(function, factor, median_distance(squared) * factor if isinstance(function, RBF) else None)
