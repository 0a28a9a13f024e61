"""Rounding errors of squared distances, and whether they hide the digits of a kernel's Gram matrix.

Squared distances follow from a Gram matrix, D_ij = K_ii + K_jj - 2 K_ij. Where two samples are near each other and far
from the center, D is a small difference of large numbers, and has few digits or none.

Rounding a number v to nearest changes it by at most u |v|, u = eps/2, with a standard deviation of at most
u |v| / sqrt(3). Errors of different operations are taken as independent, so that their variances add up (Higham and
Mary 2019, https://doi.org/10.1137/18M1226312).

Let E be the resulting errors of a kernel's Gram matrix. They are centered with it and are independent of both models,
so that the square of CKA falls by the factor |U|^2 / (|U|^2 + |E|^2), U being the centered Gram matrix. CKA thus falls
by the part |E|^2 / (2 |U|^2), of which `LARGEST_LOSS` is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.hsic.packed import PackedGrams, squared_distances, widened
from lightning_cka.hsic.precision import accumulator_dtype

LARGEST_LOSS = 1e-3
"""Largest part of CKA that rounding errors of one side's distances may take."""

_GROWTH = 512 / 3
"""Variance of the rounding error of a sum of positive products, in units of one rounding. The sum of the first i of k
terms is i/k of the total, so that k additions have the variance k/3. Matrix products add blocks of up to 512 terms."""

_FLOOR = 8.0
"""Squared distances of at most this many eps of the numbers that they are differences of are set to zero."""

_EXPLICIT_ENTRIES = 256
"""Number of entries that show with how many bits a matrix is stored."""


class DistanceVariances(NamedTuple):
    """Variances of the rounding errors of squared distances, for L layers.

    Errors of U_ij or K_ij belong to one distance; their variance is ``relative`` U_ij^2 + ``factors``_i ``factors``_j +
    ``shifts``_i + ``shifts``_j. An error of K_ii or s_i is common to all distances of sample i.
    """

    relative: Tensor
    """``(L,)``."""
    factors: Tensor
    """``(L, n)``."""
    shifts: Tensor
    """``(L, n)``."""
    common: Tensor
    """Variance of the error that all distances of a sample have in common, ``(L, n)``."""
    floors: Tensor
    """``(L, n)``: a squared distance of at most ``floors``_i + ``floors``_j was set to zero."""

    def single(self, entries: Tensor) -> Tensor:
        """Return the variances of the errors that belong to one distance, ``(L, n, n)``; ``entries`` are U_ij."""
        products = self.factors[:, :, None] * self.factors[:, None, :]
        return (
            self.relative[:, None, None] * entries.square() + products + self.shifts[:, :, None] + self.shifts[:, None]
        )

    def weighted(self, entries: Tensor, weights: Tensor) -> Tensor:
        """Return the sums over j of the variances of `single` times weights ``(L, n)``, of the shape of the weights."""
        of_entries = (entries.square() @ weights[:, :, None])[:, :, 0] * self.relative[:, None]
        products = self.factors * (self.factors * weights).sum(1, keepdim=True)
        shifts = self.shifts * weights.sum(1, keepdim=True) + (self.shifts * weights).sum(1, keepdim=True)
        return of_entries + products + shifts


def gram_variances(diagonal: Tensor, dtype: torch.dtype) -> DistanceVariances:
    """Return the variances for distances that were computed in float64 from Gram matrices in ``dtype``.

    K_ij and K_ii have errors with the variances g u^2/3 K_ii K_jj and g u^2/3 K_ii^2, where g is `_GROWTH`. D has twice
    the first error, and once that of K_ii and of K_jj.

    Args:
        diagonal: Squared distances of samples from a center in their midst, ``(L, n)``, in float64.
        dtype: Dtype of the Gram matrices.
    """
    factors = torch.finfo(dtype).eps * (_GROWTH / 3) ** 0.5 * diagonal
    return DistanceVariances(
        factors.new_zeros(len(factors)),
        factors,
        torch.zeros_like(factors),
        (factors / 2).square(),
        _FLOOR * torch.finfo(dtype).eps * diagonal,
    )


def packed_variances(packed: PackedGrams, squared: Tensor) -> DistanceVariances:
    """Return the variances for the distances of packed Gram matrices, D_ij = -2 (U_ij + s_i + s_j).

    To those of `gram_variances`, four roundings are added: of K_ij - t_i = U_ij + t_j, where t are the shifts of
    U-centering; of U_ij; and of s_i and s_j. Files in half precision have larger errors of U_ij.

    All of these are at least as large as they would be if the features were centered with the sample in their midst, r.
    Then K_ii = D_ir, and the shifts follow from sums of K over rows: t_i = -U_ir - s_r.

    Args:
        packed: Packed Gram matrices of L layers.
        squared: Their squared distances of features / scale, ``(L, n, n)``, in float64.
    """
    offsets = packed.offsets.to(squared)
    eps, stored = _working_eps(packed), _stored_eps(packed)
    _largest, middle = offsets.max(1, keepdim=True)  # The largest offset has the smallest mean distance.
    distances = squared.gather(1, middle[:, :, None].expand(-1, 1, squared.shape[2]))[:, 0]
    # Features were centered with a median of means, which stays near the middle if at most one of three groups (n < 9)
    # or three of nine have a far sample. With more of them, it may be as far from the middle as they are.
    diagonal = distances + distances.topk(4 if squared.shape[1] >= 9 else 2).values[:, -1:]
    shifts = distances / 2 + offsets  # -U_ir - s_r
    unit = eps.square()[:, None] / 3
    exact = gram_variances(diagonal, torch.float32)
    return DistanceVariances(
        (3 * eps.square() + stored.square()) / 3,
        exact.factors * eps[:, None] / torch.finfo(torch.float32).eps,
        unit * shifts.square(),
        exact.common * (eps[:, None] / torch.finfo(torch.float32).eps).square() + unit * offsets.square(),
        2 * _FLOOR * torch.finfo(packed.halves.dtype).eps * offsets.abs(),
    )


def largest_gram_deviation(diagonal: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an upper bound of the errors of `gram_variances`, ``(L,)``: g u^2/3 (4 + 1 + 1) K_ii^2, and the floors."""
    factor = float((_GROWTH / 2 + (2 * _FLOOR) ** 2) ** 0.5 * torch.finfo(dtype).eps)
    return factor * diagonal.amax(1)


def largest_packed_deviation(packed: PackedGrams, squared: Tensor) -> Tensor:
    """Return an upper bound of the errors of `packed_variances`, ``(L,)``, for little computation.

    With M the largest squared distance: K_ii <= 2 M, |s_i| <= 0.75 M, |U_ij| <= 2 M and |t_i| <= 1.25 M.
    """
    eps = torch.finfo(torch.float32).eps
    computing = ((6 * _GROWTH + 3 * 4 + 2 * 1.25**2 + 2 * 0.75**2) / 3 + (4 * 0.75 * _FLOOR) ** 2) * eps**2
    storing = 4 / 3 * _stored_eps(packed).square()
    deviation: Tensor = (computing + storing).sqrt() * squared.amax((1, 2))
    return deviation


def _working_eps(packed: PackedGrams) -> Tensor:
    """Return the eps of the dtype in which each layer was computed, ``(L,)``.

    In a float64 batch, layers that came before the first float64 layer were computed in float32.
    """
    return _eps_of_bits(packed, [torch.float32])


def _stored_eps(packed: PackedGrams) -> Tensor:
    """Return the eps with which the entries of each layer are stored, ``(L,)``."""
    return _eps_of_bits(packed, [torch.float32, torch.float16])


def _eps_of_bits(packed: PackedGrams, dtypes: list[torch.dtype]) -> Tensor:
    """Return the largest eps of the dtypes whose significant bits hold the entries exactly; else that of their own."""
    own, device = packed.halves.dtype, packed.halves.device
    bits = packed.halves[:, :_EXPLICIT_ENTRIES].view(torch.int32 if own == torch.float32 else torch.int64)
    eps = torch.full((len(bits),), torch.finfo(own).eps, dtype=accumulator_dtype(device), device=device)
    for dtype in dtypes:
        if dtype != own:
            # The last bits are zero: eps is 2 to the power of minus the number of bits after the first.
            unused = round(torch.finfo(dtype).eps / torch.finfo(own).eps) - 1
            eps = torch.where((bits & unused).any(1), eps, torch.finfo(dtype).eps)
    return eps


def loses_digits_without(packed: PackedGrams, places: Tensor, norms: Tensor) -> Tensor:
    """Return for which layers rounding errors that samples left behind take more than `LARGEST_LOSS` of linear CKA.

    Far samples change all entries of U. Without them, the rounding errors of these entries remain.

    Args:
        packed: Gram matrices of L layers on n samples.
        places: Places of the m samples that are kept, ``(m,)``.
        norms: |U|^2 of these m samples alone, ``(L,)``.

    Returns:
        Booleans, ``(L,)``; False for layers that are undefined or have no variance.
    """
    wide = widened(packed)
    squared = squared_distances(wide)
    entries = squared / 2 + wide.offsets[:, :, None] + wide.offsets[:, None, :]
    variances = packed_variances(packed, squared).single(entries)[:, places][:, :, places] / 4  # D_ij has -2 U_ij.
    variances.diagonal(dim1=1, dim2=2).zero_()
    loses: Tensor = variances.sum((1, 2)) > 2 * LARGEST_LOSS * norms
    return loses & (packed.scales != 0)


def zero_rounding_errors(squared: Tensor, magnitude: Tensor, dtype: torch.dtype) -> Tensor:
    """Set squared distances to zero where they are no larger than rounding errors.

    Args:
        squared: Squared distances, ``(..., n, n)``, computed as sums of larger terms.
        magnitude: Size of these terms, ``(..., n, n)``.
        dtype: Dtype in which the terms were computed.

    Returns:
        Squared distances, ``(..., n, n)``.
    """
    return squared.masked_fill(squared <= _FLOOR * torch.finfo(dtype).eps * magnitude, 0.0)


def hides_digits(
    function: Callable[[Tensor], Tensor], squared: Tensor, variances: DistanceVariances, entries: Tensor, norms: Tensor
) -> Tensor:
    """Return for which layers rounding errors of distances take more than `LARGEST_LOSS` of CKA.

    The kernel is computed at both ends of an interval of one standard deviation on each side.

    Args:
        function: Kernel with a fixed bandwidth, from squared distances to Gram matrices, ``(L, n, n)``.
        squared: Squared distances, ``(L, n, n)``.
        variances: Variances of their rounding errors.
        entries: U_ij in units of ``squared``, ``(L, n, n)``.
        norms: |U|^2 of the kernel's centered Gram matrices, ``(L,)``.

    Returns:
        Booleans, ``(L,)``; True for ``nan``.
    """
    common, floors = variances.common, variances.floors
    single = variances.single(entries)
    single += (floors[:, :, None] + floors[:, None, :]).square() * (squared == 0)
    deviation = (single + common[:, :, None] + common[:, None, :]).sqrt()
    deviation.diagonal(dim1=1, dim2=2).zero_()  # A sample's distance from itself is exactly zero.
    slopes = (function(squared + deviation) - function((squared - deviation).clamp(min=0))) / (2 * deviation)
    slopes = slopes.where(deviation > 0, torch.zeros_like(slopes))
    # Centering removes what is common to a row. The diagonal is no part of its mean.
    n = squared.shape[1]
    variances_of_rows = slopes.square().sum(2) - slopes.sum(2).square() / (n - 1)
    errors = (slopes.square() * single).sum((1, 2)) + 2 * (variances_of_rows.clamp(min=0) * common).sum(1)
    hidden: Tensor = ~(errors <= 2 * LARGEST_LOSS * norms)
    return hidden
