"""Split layers into the fewest blocks of consecutive layers in which each pair is alike."""

from __future__ import annotations

import torch
from torch import Tensor


def fewest_blocks(is_alike: Tensor, similarity: Tensor) -> list[range]:
    """Return the fewest runs of consecutive layers such that all pairs within a run are alike.

    Among equally many runs, the sum of the similarity over all pairs within runs is largest. Dynamic programming finds
    them: the best runs of the first layers follow from the best runs of fewer layers.

    Args:
        is_alike: Whether two layers are alike, ``(L, L)`` bool; only the upper triangle counts.
        similarity: Similarity of two layers, ``(L, L)``; only the upper triangle counts.

    Returns:
        Indices of the layers of each run, in order.
    """
    count = len(is_alike)
    ends = _ends(is_alike)
    sums = similarity.triu(1).nan_to_num(0.0).cumsum(1).tolist()  # Pairs that are not alike count in no run.
    best: list[tuple[int, float, int]] = [(0, 0.0, 0)]  # Number of runs, minus the sum, and the start of the last run.
    for end in range(1, count + 1):
        candidates, within = [], 0.0
        for start in reversed(range(end)):
            if ends[start] < end:
                break
            within += sums[start][end - 1]
            runs, minus_sum, _ = best[start]
            candidates.append((runs + 1, minus_sum - within, start))
        best.append(min(candidates))
    blocks, end = [], count
    while end > 0:
        start = best[end][2]
        blocks.append(range(start, end))
        end = start
    return blocks[::-1]


def _ends(is_alike: Tensor) -> list[int]:
    """Return for each layer the end of the longest run of next layers that are alike to it."""
    count = len(is_alike)
    above = is_alike | torch.ones(count, count, dtype=torch.bool, device="cpu").tril()
    return above.long().cumprod(1).sum(1).tolist()
