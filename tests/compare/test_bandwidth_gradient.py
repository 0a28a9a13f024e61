"""Errors of RBF kernels contain the variation of the bandwidths: against a jackknife that computes them again."""

import naive
import numpy as np
import pytest
import torch
from gram_banks import bank_of_features
from lightning_cka import RBF, Thresholds, compare_banks
from lightning_cka.compare import pair
from lightning_cka.compare.bandwidth_gradient import NUM_BATCHES

OFF = Thresholds(None, None, None, None)


def batches(count, n=32, seed=0):
    """Features of two layers, of which the second is related to the first; one-dimensional, where bandwidths matter."""
    random = np.random.RandomState(seed)
    scales = random.uniform(0.7, 1.4, count)
    xs = [[scale * random.randn(n, 1), random.randn(n, 3)] for scale in scales]
    return xs, [[x + 0.7 * random.randn(n, 1), y + 0.5 * random.randn(n, 3)] for x, y in xs]


def mean_medians(batches):
    return [np.mean([np.median(naive.squared_distances(batch[row])) for batch in batches]) for row in range(2)]


def naive_cka(xs, ys, threshold=0.5, medians=None):
    """RBF CKA of both layers with both, with the bandwidths of these batches unless others are given."""
    own, others = medians or (mean_medians(xs), mean_medians(ys))
    sums = np.zeros((3, 2, 2))
    for x, y in zip(xs, ys, strict=True):
        ks, ells = (
            [naive.rbf_gram(z, threshold, median) for z, median in zip(zs, which, strict=True)]
            for zs, which in ((x, own), (y, others))
        )
        for i, k in enumerate(ks):
            for j, ell in enumerate(ells):
                sums[:, i, j] += [naive.unbiased_hsic(*each) for each in ((k, ell), (k, k), (ell, ell))]
    return sums[0] / np.sqrt(sums[1] * sums[2])


def results(xs, ys, **options):
    banks = [bank_of_features([[*map(torch.tensor, batch)] for batch in zs], ("a", "b")) for zs in (xs, ys)]
    return compare_banks(*banks, thresholds=OFF, **options)


@pytest.mark.parametrize("count", [NUM_BATCHES, 2 * NUM_BATCHES])
def test_errors_are_those_of_bandwidths_that_are_computed_again(count):
    xs, ys = batches(count)
    value, error, left_out = naive.jackknife(xs, ys, naive_cka)
    medians = mean_medians(xs), mean_medians(ys)
    fixed = naive.jackknife(xs, ys, lambda *zs: naive_cka(*zs, medians=medians))[1]
    result = results(xs, ys, kernel="rbf")
    np.testing.assert_allclose(result.matrix, value, rtol=1e-9)
    # The gradient is of first order, and with many batches from a part of them.
    tolerance = 0.03 if count <= NUM_BATCHES else 0.06
    np.testing.assert_allclose(result.standard_error, error, rtol=tolerance)
    assert np.abs(fixed / error - 1).max() > 3 * tolerance
    np.testing.assert_allclose(result.left_out_batches.all_pairs, left_out, atol=0.2 * error.min())


def test_the_errors_with_fixed_bandwidths_differ(monkeypatch):
    """Otherwise the tests above could not fail."""
    xs, ys = batches(NUM_BATCHES)
    full = results(xs, ys, kernel="rbf").standard_error
    monkeypatch.setattr(pair.BandwidthGradient, "changes", lambda *_, **__: torch.zeros(NUM_BATCHES, 2, 2))
    assert (results(xs, ys, kernel="rbf").standard_error / full - 1).abs().max() > 0.1


def test_a_large_bandwidth_does_not_matter():
    xs, ys = batches(NUM_BATCHES)
    linear, wide = (results(xs, ys, kernel=kernel).standard_error for kernel in ("linear", RBF(300.0)))
    torch.testing.assert_close(wide, linear, rtol=1e-3, atol=0)


def test_the_error_of_equal_layers_is_zero():
    xs, _ = batches(NUM_BATCHES)
    assert results(xs, xs, kernel="rbf").standard_error.diagonal().abs().max() < 1e-10
    bank = bank_of_features([[*map(torch.tensor, batch)] for batch in xs], ("a", "b"))
    assert compare_banks(bank, bank, kernel="rbf", thresholds=OFF).standard_error.diagonal().abs().max() < 1e-10


def test_undefined_layers_do_not_spoil_the_others():
    xs, ys = batches(NUM_BATCHES)
    expected = results(xs, ys, kernel="rbf").standard_error[1, 1]
    xs[3][0][5] = np.nan
    with pytest.warns(UserWarning, match="CKA"):
        error = results(xs, ys, kernel="rbf").standard_error
    assert error.isnan().tolist() == [[True, True], [False, False]]
    assert error[1, 1] == pytest.approx(expected.item(), rel=1e-9)
