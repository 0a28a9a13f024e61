"""The fewest blocks of alike layers: against all partitions of few layers."""

from itertools import combinations, pairwise

import pytest
import torch
from lightning_cka.decisions.alike_blocks import fewest_blocks


def all_partitions(count):
    """All ways to cut ``count`` layers into runs."""
    for number in range(count):
        for cuts in combinations(range(1, count), number):
            yield [range(start, end) for start, end in pairwise((0, *cuts, count))]


def naive_blocks(is_alike, similarity):
    """Try all partitions."""

    def pairs(runs):
        return [pair for run in runs for pair in combinations(run, 2)]

    allowed = [runs for runs in all_partitions(len(is_alike)) if all(is_alike[pair] for pair in pairs(runs))]
    return min(allowed, key=lambda runs: (len(runs), -sum(float(similarity[pair]) for pair in pairs(runs))))


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("share", [0.3, 0.8, 0.95])
def test_no_other_partition_is_better(count, share):
    random = torch.Generator().manual_seed(count)
    for _ in range(20):
        is_alike = torch.rand(count, count, generator=random) < share
        similarity = torch.rand(count, count, generator=random, dtype=torch.float64)
        assert fewest_blocks(is_alike, similarity) == naive_blocks(is_alike, similarity)


def test_fewer_blocks_come_before_a_larger_sum():
    """The middle pair is the most similar one, but a block of it leaves three blocks instead of two."""
    is_alike = torch.ones(4, 4).diagonal(1).diag(1).bool()
    similarity = torch.full((4, 4), 0.1)
    similarity[1, 2] = 0.9
    assert fewest_blocks(is_alike, similarity) == [range(2), range(2, 4)]


def test_the_lower_triangle_and_undefined_pairs_do_not_count():
    is_alike = torch.tensor([[False, True, False], [False, False, False], [True, True, False]])
    similarity = torch.tensor([[torch.nan, 0.9, torch.nan], [torch.nan, torch.nan, torch.nan], [1.0, 1.0, torch.nan]])
    assert fewest_blocks(is_alike, similarity) == [range(2), range(2, 3)]
    assert fewest_blocks(torch.zeros(0, 0, dtype=torch.bool), torch.zeros(0, 0)) == []
