"""The median of squared distances, which fixes the bandwidth of an RBF kernel."""

from __future__ import annotations

import torch
from torch import Tensor


def median_distance(squared: Tensor) -> Tensor:
    """Return the median of all n^2 entries of each matrix, as NumPy defines it, from the entries above the diagonal.

    The n zeros of the diagonal come first in order. Then each pair of samples occurs twice.

    Args:
        squared: Symmetric matrices of squared distances with a zero diagonal, ``(..., n, n)``, n >= 3.

    Returns:
        Medians, ``(...)``: the mean of the two middle entries if n is even; ``nan`` if an entry is not finite.
    """
    n = squared.shape[-1]
    rows, columns = torch.triu_indices(n, n, 1, device=squared.device)
    pairs = squared[..., rows, columns]
    lower, upper = (pairs.kthvalue((place - n) // 2 + 1).values for place in ((n**2 - 1) // 2, n**2 // 2))
    return (lower + upper) / 2 + 0 * pairs.amax(-1)
