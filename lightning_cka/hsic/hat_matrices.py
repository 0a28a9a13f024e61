"""`Ridge`: whether the same targets can be predicted from two layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_cka.hsic.centering import u_centered
from lightning_cka.hsic.distance_errors import LARGEST_LOSS, packed_variances
from lightning_cka.hsic.entry_positions import folded_positions
from lightning_cka.hsic.folding import fold
from lightning_cka.hsic.kernel_grams import in_chunks, precise_distances
from lightning_cka.hsic.measure import Measure, part_of_one, with_parameters
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.products import Vectors

DEFAULT_ALPHA = 0.01
"""Weight of the penalty, in units of the mean variance."""


@dataclass(frozen=True)
class Ridge(Measure):
    """CKA of the hat matrices of ridge regression: the CKA of all directions on an equal footing.

    The hat matrix H = K (K + alpha tr(K)/n I)^-1 turns targets into their predictions from a layer's features, where K
    is the doubly centered Gram matrix of n samples. All directions with a variance well above the penalty count alike,
    so that a single strong direction does not decide, as it can for linear CKA. This is regularised CCA. The value
    depends on n: compare only values of one batch size.

    Source: Boix-Adsera et al. 2022 (GULP), https://arxiv.org/abs/2210.06545.

    Args:
        alpha: Weight of the penalty, in (0, 1), in units of the mean variance over the samples' directions, tr(K)/n.

    Raises:
        ValueError: ``alpha`` is not between 0 and 1.
        TypeError: ``alpha`` is not a number.

    Example:
        >>> from lightning_cka import Ridge
        >>> Ridge(alpha=0.1).name
        'ridge(0.1)'
    """

    alpha: float = DEFAULT_ALPHA

    key: ClassVar[str] = "ridge"

    def __post_init__(self) -> None:
        """Check the weight of the penalty."""
        object.__setattr__(self, "alpha", part_of_one("Ridge", "alpha", self.alpha))

    @property
    def name(self) -> str:
        """Return "ridge", with the weight of the penalty if it is not the default."""
        return with_parameters(self.key, *([] if self.alpha == DEFAULT_ALPHA else [f"{self.alpha:g}"]))

    def vectors(self, grams: PackedGrams) -> Vectors:
        """Return the vectors ``(L, p)`` of U-centered hat matrices, in the layout of `PackedGrams.halves`.

        Layers are undefined where rounding errors may take more than a thousandth of the value.
        """
        values = torch.empty_like(grams.halves)
        factors = torch.ones_like(grams.scales)
        for chosen, part in in_chunks(grams):
            hat, errors = _hat_matrices(part, self.alpha)
            halves = fold(u_centered(hat))
            values[chosen] = halves.to(values)
            undefined = ~(errors <= 4 * LARGEST_LOSS * halves.square().sum(1)) & (part.scales != 0)
            factors[chosen] = factors[chosen].masked_fill(undefined, torch.nan)
        return Vectors(values, factors * grams.scales.sign(), grams.num_samples)

    def positions(self, n: int) -> Tensor:
        """Return the positions in the folded layout."""
        return folded_positions(n)

    def weight(self, n: int) -> float:
        """Return n: the squared norm of a hat matrix is at most its number of directions."""
        return n


def _hat_matrices(grams: PackedGrams, alpha: float) -> tuple[Tensor, Tensor]:
    """Return hat matrices ``(L, n, n)`` in float64, and estimates of their squared rounding errors ``(L,)``.

    With R = (K / t + I)^-1, an error E of K changes H = I - R by R E R / t, to first order. If the entries E_ij are
    independent with the variances v_ij, the expected square of its norm is about sum v_ij q_i q_j / t^2, and at most
    twice as much, where q_i is the squared norm of row i of R. E is centered, so that q_i leaves out the constant
    direction, in which R is 1.

    Args:
        grams: Gram matrices of L layers on n samples.
        alpha: Weight of the penalty.
    """
    squared = precise_distances(grams)
    n = grams.num_samples
    rows = squared.mean(2, keepdim=True)
    k = (rows + rows.mT - squared - rows.mean(1, keepdim=True)) / 2
    penalty = alpha * k.diagonal(dim1=1, dim2=2).sum(1) / n
    identity = torch.eye(n, dtype=k.dtype, device=k.device)
    is_usable = (penalty > 0) & penalty.isfinite()
    penalty = penalty.where(is_usable, torch.ones_like(penalty))[:, None, None]
    factor, _ = torch.linalg.cholesky_ex((k / penalty).where(is_usable[:, None, None], identity) + identity)
    shrunk = torch.cholesky_inverse(factor)
    variances = packed_variances(grams, squared)
    entries = squared / 2 + grams.offsets.to(k)[:, :, None] + grams.offsets.to(k)[:, None, :]
    kept = (shrunk.square().sum(2) - 1 / n).clamp(min=0)
    # D has twice the errors of K. Of an error that all distances of a sample have in common, K_ii keeps all.
    of_pairs = variances.weighted(entries, kept) / 4
    errors = (kept * of_pairs).sum(1) + (kept.square() * variances.common).sum(1)
    return identity - shrunk, errors / penalty[:, 0, 0].square()
