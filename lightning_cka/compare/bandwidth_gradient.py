"""`BandwidthGradient`: how CKA changes with the bandwidths of an RBF kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cka.hsic.kernel_grams import apply_kernel
from lightning_cka.hsic.measure import CKA
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.products import hsic_products, row_products
from lightning_cka.probe.bank_medians import Bandwidths
from lightning_cka.runtime.collectives import all_reduce_sum

STEP = 1e-3
"""Relative change of the medians from which the gradient follows."""

NUM_BATCHES = 8
"""Number of probe batches from which the gradient is computed. It needs few digits, since it is part of an error."""


def shifted_grams(measure: CKA, linear: PackedGrams, medians: Tensor) -> PackedGrams:
    """Return the kernel's Gram matrices of one batch with medians that are larger by the part `STEP`.

    Where rounding errors hide digits, CKA with the medians themselves is ``nan`` already.

    Args:
        measure: CKA of a kernel with a bandwidth.
        linear: Linear Gram matrices of L layers.
        medians: Median squared distances, ``(L,)``.
    """
    return apply_kernel(
        measure.kernel_function, linear, medians * (1 + STEP), unbiased=measure.unbiased, checks_digits=False
    )


class BandwidthGradient:
    """The gradient of CKA with respect to the logarithms of the medians that fix the bandwidths.

    The bandwidths follow from the probe batches, too. Without a batch they are others, and so is CKA. A jackknife that
    kept them would give errors that are up to 15 % too small.

    Args:
        num_layers: Number of layers L.
        num_reference_layers: Number of layers R of the reference.
        device: Device of the sums.
        unbiased: Whether the unbiased HSIC is used.
    """

    def __init__(self, num_layers: int, num_reference_layers: int, device: torch.device, *, unbiased: bool) -> None:
        self._unbiased = unbiased
        shapes = ((num_layers, num_reference_layers), (num_layers,), (num_reference_layers,))
        # <K, L>, <K, K> and <L, L>; then the changes of <K, L> with both bandwidths, and of <K, K'> and <L, L'>.
        self._sums = [torch.zeros(shapes[i], dtype=torch.float64, device=device) for i in (0, 1, 2, 0, 0, 1, 2)]
        self._count = torch.zeros(1, dtype=torch.float64, device=device)

    def add(self, x: PackedGrams, shifted_x: PackedGrams, y: PackedGrams, shifted_y: PackedGrams) -> None:
        """Add one batch.

        Args:
            x: Gram matrices of L layers.
            shifted_x: The same with medians that are larger by the part `STEP`.
            y: Gram matrices of R layers.
            shifted_y: The same with larger medians.
        """
        pairs, layers, references = hsic_products(x, y, unbiased=self._unbiased)
        new = (
            pairs,
            layers,
            references,
            hsic_products(shifted_x, y, unbiased=self._unbiased)[0] - pairs,
            hsic_products(x, shifted_y, unbiased=self._unbiased)[0] - pairs,
            row_products(shifted_x, x, unbiased=self._unbiased).sum(1) - layers,
            row_products(shifted_y, y, unbiased=self._unbiased).sum(1) - references,
        )
        self._sums = [total + each.to(total) for total, each in zip(self._sums, new, strict=True)]
        self._count = self._count + 1

    def changes(self, members: Sequence[Sequence[int]], x: Bandwidths, y: Bandwidths, *, distributed: bool) -> Tensor:
        """Return by how much CKA changes without each batch because the bandwidths change, ``(k, L, R)``.

        It is zero if no batch was added.

        Args:
            members: For each of k batches its index, or those of several batches that are left out together.
            x: Bandwidths of the layers.
            y: Bandwidths of the reference's layers.
            distributed: Whether several processes share the batches. Then all of them must call this.
        """
        flat = torch.cat([self._count, *(total.flatten() for total in self._sums)])
        flat = all_reduce_sum(flat, distributed=distributed).cpu()
        sizes = [1, *(total.numel() for total in self._sums)]
        count, *parts = torch.split(flat, sizes)
        shapes = [total.shape for total in self._sums]
        c, a, b, c_x, c_y, p_x, p_y = (part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
        if count == 0:
            return torch.zeros(len(members), *c.shape, dtype=torch.float64, device="cpu")
        norms = (a[:, None] * b).sqrt()
        of_x = (c_x / norms - c / norms * (p_x / a)[:, None]) / STEP
        of_y = (c_y / norms - c / norms * (p_y / b)) / STEP
        x_changes, y_changes = (
            torch.stack([torch.stack([each.changes[index] for index in indices]).sum(0) for indices in members]).cpu()
            for each in (x, y)
        )
        return of_x * x_changes[:, :, None] + of_y * y_changes[:, None, :]
