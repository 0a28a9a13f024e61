"""Which sample a row belongs to is found from the values."""

import pytest
import torch
from lightning_cka.probe.batch_part import some_samples
from lightning_cka.probe.row_layout import Folding, RowOrder, find_folding, find_row_order

N = 8


def others(place):
    """The places of all samples but one."""
    return [i for i in range(N) if i != place]


@pytest.fixture
def rows():
    return torch.randn(N, 3, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def fewer(rows):
    """The rows of all samples but the last."""
    return rows[:-1]


@pytest.mark.parametrize("place", [0, 3, N - 1])
def test_rows_that_stay(rows, place):
    fewer = torch.cat([rows[:place], rows[place + 1 :]])
    assert find_row_order(rows, fewer, others(place)) is RowOrder.SAME
    assert find_row_order(rows, fewer + 1e-5, others(place)) is RowOrder.SAME


@pytest.mark.parametrize("column", range(4))
def test_rows_that_are_sorted(rows, column):
    rows[0, 0] = rows[:, 0].amin(0) - 1
    order, order_of_fewer = (x[:, 0, column].argsort() for x in (rows, rows[1:]))
    # The first stays the first.
    assert find_row_order(rows[order], rows[1:][order_of_fewer], others(0)) is RowOrder.SAME
    order, order_of_fewer = (x[:, 0, column].argsort() for x in (rows, rows[:-1]))
    is_last = order[-1] == N - 1
    expected = RowOrder.SAME if is_last else RowOrder.PERMUTED
    assert find_row_order(rows[order], rows[:-1][order_of_fewer], others(N - 1)) is expected


def test_rows_that_are_shuffled_each_time(rows, fewer):
    generator = torch.Generator().manual_seed(1)
    one, other = (torch.randperm(n, generator=generator) for n in (N, N - 1))
    assert find_row_order(rows[one], fewer[other], others(N - 1)) is RowOrder.PERMUTED


def test_rows_in_reverse(rows, fewer):
    assert find_row_order(rows.flip(0), fewer.flip(0), others(N - 1)) is RowOrder.PERMUTED
    assert find_row_order(rows.flip(0), rows[1:].flip(0), others(0)) is RowOrder.PERMUTED


def test_rows_that_depend_on_the_other_samples(rows, fewer):
    assert find_row_order(rows - rows.mean(0), fewer - fewer.mean(0), others(N - 1)) is RowOrder.UNKNOWN


def test_a_dead_layer_has_no_order():
    assert find_row_order(torch.zeros(N, 3), torch.zeros(N - 1, 3), others(N - 1)) is RowOrder.SAME
    dead = torch.zeros(N, 3)
    dead[2] = 1
    assert find_row_order(dead, torch.zeros(N - 1, 3), others(N - 1)) is RowOrder.UNKNOWN


def test_padding_to_the_longest_sample(rows, fewer):
    assert find_row_order(rows, fewer[:, :2], others(N - 1)) is RowOrder.SAME


def test_bad_values(rows):
    rows[3] = torch.nan
    rows[4, 0, 0] = torch.inf
    assert find_row_order(rows, rows[:-1], others(N - 1)) is RowOrder.SAME


@pytest.mark.parametrize("k", [2, 3])
def test_rows_that_are_folded(rows, k):
    views = torch.randn(k, N, 5, generator=torch.Generator().manual_seed(1))
    assert find_folding(views.flatten(0, 1), views[:, :-1].flatten(0, 1), N) is Folding.BY_VIEW
    samples = views.transpose(0, 1)
    assert find_folding(samples.flatten(0, 1), samples[:-1].flatten(0, 1), N) is Folding.BY_SAMPLE
    noise = torch.randn(k * N, 5)
    assert find_folding(noise, torch.randn(k * (N - 1), 5), N) is Folding.UNKNOWN
    assert find_folding(torch.zeros(k * N, 5), torch.zeros(k * (N - 1), 5), N) is Folding.UNKNOWN


@pytest.mark.parametrize("reorder", [lambda x: x.flip(0), lambda x: x.roll(1, 0), lambda x: x[x[:, 0, 0].argsort()]])
@pytest.mark.parametrize("n", [6, 8, 9, 10, 16, 17, 32])
def test_some_samples_are_enough(reorder, n):
    rows = torch.randn(n, 3, 4, generator=torch.Generator().manual_seed(n))
    samples = some_samples(n)
    part = rows[list(samples)]
    assert find_row_order(rows, part, samples) is RowOrder.SAME
    assert find_row_order(reorder(rows), reorder(part), samples) is RowOrder.PERMUTED
