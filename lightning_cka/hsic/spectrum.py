"""What a Gram matrix tells of the eigenvalues of its layer's covariance."""

from __future__ import annotations

from torch import Tensor


def effective_dimension_numerator(offsets: Tensor, squared_norms: Tensor) -> Tensor:
    """n(n-3) times the unbiased estimate of the squared trace of the covariance.

    It is the mean of D_ij D_kl / 4 over all distinct i, j, k, l, D being squared distances:
    [(sum D)^2 - 4 sum_i (sum_j D_ij)^2 + 2 sum D^2] / (4 n (n-1) (n-2) (n-3)). With D_ij = -2 (U_ij + s_i + s_j), and
    the rows of U summing to zero, the bracket is 16 (n-2) (n-3) sum_{i != j} s_i s_j + 8 <U, U>.

    Args:
        offsets: ``(L, n)``, s; see `lightning_cka.hsic.packed.PackedGrams`.
        squared_norms: ``(L,)``, <U, U>.

    Returns:
        ``(L,)``. Divided by ``squared_norms`` it is the effective dimension.
    """
    n = offsets.shape[1]
    # Not the square of the sum less the sum of squares: of a far outlier, these differ in no digit.
    mixed = 2 * (offsets[:, 1:] * offsets.cumsum(1)[:, :-1]).sum(1)
    return (4 * (n - 3) * mixed + 2 * squared_norms / (n - 2)) / (n - 1)
