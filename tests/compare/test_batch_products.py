"""Standard errors of results and of their means, against leaving out each batch and comparing again."""

import naive
import numpy as np
import pytest
import torch
from gram_banks import bank_of_features
from lightning_cka import MinibatchCKA, compare_banks
from lightning_cka.compare.batch_products import batch_identity
from lightning_cka.compare.flags import Thresholds

OFF = Thresholds.off()
LAYERS = ("a", "b", "c")


def layered(sizes=(32,) * 6, seed=0):
    """Three layers with common noise, so that their errors are correlated."""
    generator = torch.Generator().manual_seed(seed)
    xs, ys = [], []
    for size in sizes:
        common = torch.randn(size, 4, generator=generator, dtype=torch.float64)
        xs.append([common + 0.1 * torch.randn(size, 4, generator=generator) for _ in range(3)])
        ys.append([z + torch.randn(size, 4, generator=generator) for z in xs[-1]])
    return xs, ys


def compared(xs, ys, layers=LAYERS, reference_layers=LAYERS, **kwargs):
    banks = bank_of_features(xs, layers), bank_of_features(ys, reference_layers)
    return compare_banks(*banks, thresholds=OFF, **kwargs)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("sizes", [(20, 20, 20, 20), (20, 6, 3, 15, 9)])  # A batch of 3 is skipped.
def test_errors_equal_computing_without_each_batch(sizes, unbiased):
    xs, ys = layered(sizes)
    kept = [[z for z in zs if len(z[0]) > 3] for zs in (xs, ys)]
    hsic = naive.unbiased_hsic if unbiased else naive.biased_hsic
    weight = (lambda n: n * (n - 3)) if unbiased else (lambda n: (n - 1) ** 2)
    value, error, left_out = naive.jackknife(xs, ys, lambda *z: naive.minibatch_cka(*z, hsic, weight), weight)
    _, mean_error, _ = naive.jackknife(
        xs, ys, lambda *z: naive.minibatch_cka(*z, hsic, weight).diagonal().mean(), weight
    )
    result = compared(*kept, unbiased=unbiased)
    np.testing.assert_allclose(result.matrix, value, rtol=1e-9)
    np.testing.assert_allclose(result.standard_error, error, rtol=1e-9)
    assert result.mean_standard_error == pytest.approx(mean_error, rel=1e-9)
    np.testing.assert_allclose(result.left_out_batches.all_pairs, left_out, rtol=1e-9)
    assert result.left_out_batches.names == LAYERS
    np.testing.assert_allclose(result.left_out_batches.values, left_out.diagonal(axis1=1, axis2=2).T, rtol=1e-9)


@pytest.mark.parametrize("kernel", ["distance", lambda squared: (-squared / 8).exp()])
def test_the_jackknife_of_other_kernels(kernel):
    """A bandwidth stays that of all batches, as in these kernels."""
    xs, ys = layered()
    result = compared(xs, ys, kernel=kernel)
    for i in range(1, 6):
        without = compared(xs[:i] + xs[i + 1 :], ys[:i] + ys[i + 1 :], kernel=kernel)
        np.testing.assert_allclose(result.left_out_batches.all_pairs[i], without.matrix, rtol=1e-9)


@pytest.mark.parametrize("case", ["other names", "one model"])
def test_the_error_of_the_mean_of_other_pairs(case):
    xs, ys = layered()
    names = LAYERS if case == "one model" else ("d", "e", "f")

    def result_of(xs, ys):
        if case == "other names":
            return compared(xs, ys, reference_layers=names)
        bank = bank_of_features(xs, names)
        return compare_banks(bank, bank, thresholds=OFF)

    result = result_of(xs, ys)
    left_out = [result_of(xs[:i] + xs[i + 1 :], ys[:i] + ys[i + 1 :]).mean_all_pairs() for i in range(6)]
    jackknife = np.sqrt(5 / 6 * ((np.array(left_out) - result.mean_all_pairs()) ** 2).sum())
    assert result.mean_standard_error == pytest.approx(jackknife, rel=1e-9)


def test_the_mean_of_one_cell_has_the_standard_error_of_the_cell():
    xs, ys = layered((12, 12, 7, 12))
    single = compared([x[:1] for x in xs], [y[:1] for y in ys], ("a",), ("a",))
    assert single.mean_standard_error == pytest.approx(single.standard_error.item(), rel=1e-12)
    one_batch = compared(xs[:1], ys[:1])
    assert np.isnan(one_batch.mean_standard_error)
    assert one_batch.standard_error.isnan().all()


def test_a_layer_that_is_nan_is_left_out_of_the_mean_and_its_error():
    xs, ys = layered()
    fine = compared([x[:2] for x in xs], [y[:2] for y in ys], LAYERS[:2], LAYERS[:2])
    for x in xs:
        x[2] = torch.zeros(32, 4)
    with pytest.warns(UserWarning, match="no variance: c"):
        result = compared(xs, ys)
    assert result.mean() == pytest.approx(fine.mean())
    assert result.mean_standard_error == pytest.approx(fine.mean_standard_error)
    assert result.standard_error[2].isnan().all()


def test_minibatch_cka_has_only_sums_and_keeps_the_delta_method():
    xs, ys = layered()
    metric = MinibatchCKA(LAYERS)
    for x, y in zip(xs, ys, strict=True):
        metric.update(x, y)
    result, other = metric.result(), compared(xs, ys)
    assert torch.allclose(result.matrix, other.matrix, rtol=1e-12)
    assert result.left_out_batches is None
    assert torch.allclose(result.standard_error, other.standard_error, rtol=0.2)
    assert not torch.allclose(result.standard_error, other.standard_error, rtol=1e-6)


def test_an_outlier_has_a_larger_error_than_by_the_delta_method():
    xs, ys = layered()
    xs[2][0][5] *= 30
    metric = MinibatchCKA(LAYERS)
    for x, y in zip(xs, ys, strict=True):
        metric.update(x, y)
    assert (compared(xs, ys).standard_error[0] > 1.5 * metric.result().standard_error[0]).all()


def test_batches_are_identified_by_samples_and_inputs():
    identities = {batch_identity((1, 2), "a"), batch_identity((1, 3), "a"), batch_identity((1, 2), "b")}
    assert len(identities) == 3
    assert batch_identity((1, 2), "a") in identities
    assert all(-(2**63) <= each < 2**63 for each in identities)
