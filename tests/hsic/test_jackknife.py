"""The jackknife over batches, against leaving out each batch and computing everything again."""

import math

import naive
import numpy as np
import pytest
import torch
from lightning_cka.hsic import jackknife
from lightning_cka.hsic.jackknife import effective_batches, jackknife_error, sums_of_others, without_each_batch
from lightning_cka.hsic.products import hsic_products
from lightning_cka.hsic.stack import pack_features

WEIGHTS = {True: lambda n: n * (n - 3), False: lambda n: (n - 1) ** 2}
HSIC = {True: naive.unbiased_hsic, False: naive.biased_hsic}


def features(sizes, seed=0):
    """Three layers and two of a reference, which depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    xs, ys = [], []
    for n in sizes:
        common = torch.randn(n, 4, generator=generator, dtype=torch.float64)
        xs.append([common + torch.randn(n, 4, generator=generator) for _ in range(3)])
        ys.append([common + i * torch.randn(n, 4, generator=generator) for i in range(2)])
    return xs, ys


def products(xs, ys, unbiased):
    batches = [
        hsic_products(pack_features(x), pack_features(y), unbiased=unbiased) for x, y in zip(xs, ys, strict=True)
    ]
    return [torch.stack(parts) for parts in zip(*batches, strict=True)]


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("sizes", [(12, 12, 12, 12, 12), (20, 6, 13, 4), (9, 31)])
@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_it_equals_computing_without_each_batch(sizes, unbiased, factor):
    xs, ys = features(sizes)
    xs[1][0][2] *= factor  # A sample that dominates its batch and the sums.
    cka = [lambda xs, ys: naive.minibatch_cka(xs, ys, HSIC[unbiased], WEIGHTS[unbiased]), WEIGHTS[unbiased]]
    expected = naive.jackknife(xs, ys, *cka)
    value, left_out = without_each_batch(*products(xs, ys, unbiased))
    weights = torch.tensor([WEIGHTS[unbiased](n) for n in sizes], dtype=torch.float64)
    found = (value, jackknife_error(value, left_out, weights), left_out)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-9, atol=1e-12)


def test_rows_are_computed_in_groups(monkeypatch):
    parts = products(*features((12, 9, 15)), True)
    whole = without_each_batch(*parts)
    monkeypatch.setattr(jackknife, "_MAX_ENTRIES", 7)
    for one, other in zip(whole, without_each_batch(*parts), strict=True):
        assert torch.equal(one, other)


def test_a_batch_that_outweighs_the_others_leaves_no_rounding_errors():
    values = torch.tensor([1.0, 1e20, 3.0, 5.0], dtype=torch.float64)
    assert sums_of_others(values)[1] == 9
    assert (values.sum() - values)[1] != 9


def test_the_error_of_a_mean_is_the_usual_one():
    sample = torch.randn(7, dtype=torch.float64)
    left_out = sums_of_others(sample) / 6
    error = jackknife_error(sample.mean(), left_out, torch.ones(7, dtype=torch.float64))
    assert error.item() == pytest.approx((sample.std() / 7**0.5).item(), rel=1e-12)


@pytest.mark.parametrize(("sizes", "low", "high"), [((64,) * 8, 0.97, 1.03), ((64, 64, 64, 48, 96, 32), 0.95, 1.05)])
def test_the_variance_is_right_for_batches_of_unequal_size(sizes, low, high):
    """HSIC of a batch of n samples has variance 1 / n and weight n (n - 3). The estimate is the weighted mean."""
    n = torch.tensor(sizes, dtype=torch.float64)
    weights = n * (n - 3)
    values = torch.randn(len(n), 100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weighted = weights[:, None] * values / n.sqrt()[:, None]
    left_out = sums_of_others(weighted) / sums_of_others(weights)[:, None]
    error = jackknife_error(weighted.sum(0) / weights.sum(), left_out, weights)
    truth = (weights.square() / n).sum() / weights.sum() ** 2
    assert low < error.square().mean() / truth < high


def test_a_model_compared_with_itself_has_no_error_on_the_diagonal():
    xs, _ = features((12, 9, 15, 30))
    pairs, layers, references = products(xs, [[*x] for x in xs], True)
    value, left_out = without_each_batch(pairs, layers, references)
    assert jackknife_error(value, left_out, torch.ones(4, dtype=torch.float64)).diagonal().max() < 1e-12
    batches = [hsic_products(pack_features(x), None, unbiased=True) for x in xs]
    value, left_out = without_each_batch(*(torch.stack(parts) for parts in zip(*batches, strict=True)))
    assert (left_out.diagonal(dim1=1, dim2=2) == 1).all()


def test_fewer_than_two_batches_and_batches_without_which_nothing_remains():
    parts = products(*features((12,)), True)
    value, left_out = without_each_batch(*parts)
    assert jackknife_error(value, left_out, torch.ones(1, dtype=torch.float64)).isnan().all()
    value, left_out = without_each_batch(*(part[:0] for part in parts))
    assert value.isnan().all()
    assert jackknife_error(value, left_out, torch.ones(0, dtype=torch.float64)).isnan().all()
    dead = [torch.cat([part, torch.zeros_like(part)]) for part in parts]  # A layer that is constant in all others.
    value, left_out = without_each_batch(*dead)
    assert jackknife_error(value, left_out, torch.ones(2, dtype=torch.float64)).isnan().all()


def test_effective_batches():
    assert effective_batches(torch.full((8,), 3.0)) == pytest.approx(8)
    assert effective_batches(torch.tensor([1.0, 0.0001])) == pytest.approx(1, abs=1e-3)
    assert math.isnan(effective_batches(torch.ones(0, dtype=torch.float64)))


def test_weights_can_differ_between_the_estimates():
    sample = torch.randn(7, 2, dtype=torch.float64)
    weights = torch.ones_like(sample)
    sample[5:, 1] = weights[5:, 1] = 0  # The second estimate is the mean of five values.
    left_out = sums_of_others(sample) / sums_of_others(weights)
    found = jackknife_error(sample.sum(0) / weights.sum(0), left_out, weights)
    expected = [sample[:7, 0].std() / 7**0.5, sample[:5, 1].std() / 5**0.5]
    assert found.tolist() == pytest.approx([each.item() for each in expected], rel=1e-12)
