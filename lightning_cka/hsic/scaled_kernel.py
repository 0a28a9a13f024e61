"""`ScaledKernel`: a kernel of several layers whose distances have internal scales, with fixed bandwidths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cka.hsic.check_kernels import checked_gram
from lightning_cka.hsic.distance_errors import LARGEST_LOSS
from lightning_cka.hsic.kernels import RBF, KernelFn, distance


@dataclass(frozen=True)
class ScaledKernel:
    """A function from squared distances of features / scale to Gram matrices, for L layers at a time.

    Args:
        function: The kernel, as a function of squared distances.
        factors: Squared scales, ``(L,)``.
        medians: Median squared distances that fix the bandwidths of an RBF kernel, ``(L,)``; None for other kernels.
    """

    function: KernelFn
    factors: Tensor
    medians: Tensor | None = None

    def __call__(self, squared: Tensor) -> Tensor:
        """Return the Gram matrices of squared distances ``(L, n, n)`` of features / scale, in their dtype."""
        squared = squared * self.factors[:, None, None]
        if isinstance(self.function, RBF):
            return self.function(squared, self.medians)
        if self.function is distance:
            return distance(squared)
        # A user's function gets one layer at a time: it need not accept a batch of matrices.
        return torch.stack([checked_gram(self.function, each) for each in squared])

    def may_hide_digits(self, squared: Tensor, grams: Tensor, deviation: Tensor, norms: Tensor) -> Tensor:
        """Return for which layers rounding errors may change CKA, from bounds that take little computation.

        The slope of an RBF kernel is at most 1 / (2 sigma^2). That of the distance is 1 / (2 sqrt(D)), and an error e
        of D changes it by at most min(sqrt(e), e / sqrt(D)). A user's function is computed once more.

        Args:
            squared: Squared distances of features / scale, ``(L, n, n)``.
            grams: The kernel's Gram matrices, ``(L, n, n)``.
            deviation: Largest standard deviations of errors of ``squared``, ``(L,)``.
            norms: |U|^2 of the centered Gram matrices, ``(L,)``.

        Returns:
            Booleans, ``(L,)``; True for ``nan``.
        """
        may_hide: Tensor = ~(self._largest_errors(squared, grams, deviation) <= 2 * LARGEST_LOSS * norms)
        return may_hide

    def _largest_errors(self, squared: Tensor, grams: Tensor, deviation: Tensor) -> Tensor:
        """Return upper bounds of |E|^2, where E are the errors of Gram matrices, ``(L,)``."""
        if isinstance(self.function, RBF) and self.medians is not None:
            errors: Tensor = (
                squared.shape[1] / (2 * self.function.threshold**2) * deviation * self.factors / self.medians
            )
            return errors.square().where(deviation > 0, 0.0)  # If all distances are zero, so is their median.
        if self.function is distance:
            floor = deviation.clamp(min=torch.finfo(deviation.dtype).tiny)[:, None, None]
            return torch.maximum(squared, floor).reciprocal_().sum((1, 2)) * deviation.square() * self.factors
        changes = self(squared + deviation[:, None, None]) - grams
        changes.diagonal(dim1=1, dim2=2).zero_()  # A sample's distance from itself is exactly zero.
        return changes.square().sum((1, 2))
