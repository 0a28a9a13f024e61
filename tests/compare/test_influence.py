"""Leave-one-out values and the standard error of a mean, against computing them without shortcuts."""

import naive
import numpy as np
import pytest
import torch
from gram_banks import bank_of_features
from lightning_cka import compare_banks
from lightning_cka.compare import influence
from lightning_cka.compare.flags import Thresholds
from lightning_cka.compare.influence import leave_one_out_reductions
from lightning_cka.hsic.products import hsic_products
from lightning_cka.hsic.stack import pack_features

OFF = Thresholds.off()


def batches(sizes=(12, 12, 7), d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xs = [torch.randn(n, d, generator=generator, dtype=torch.float64) for n in sizes]
    return xs, [x[:, :2] + torch.randn(len(x), 2, generator=generator) for x in xs]


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("sizes", [(12, 12, 7), (20,), (5, 5, 5, 5)])
@pytest.mark.parametrize("factor", [1.0, 30.0])
def test_leave_one_out_equals_computing_without_each_sample(sizes, unbiased, factor):
    xs, ys = batches(sizes)
    xs[-1][2] *= factor
    hsic = naive.unbiased_hsic if unbiased else naive.biased_hsic
    weight = (lambda n: n * (n - 3)) if unbiased else (lambda n: (n - 1) ** 2)
    columns = ([[x.numpy()] for x in xs], [[y.numpy()] for y in ys])
    value = naive.minibatch_cka(*columns, hsic, weight)[0, 0]
    without = naive.leave_one_out([x.numpy() for x in xs], [y.numpy() for y in ys], hsic, weight)
    result = compare_banks(
        bank_of_features([[x] for x in xs]), bank_of_features([[y] for y in ys]), unbiased=unbiased, thresholds=OFF
    )
    assert result.matrix.item() == pytest.approx(value, rel=1e-10)
    sample, left, change = result.diagnostics.leave_one_out["a"]
    worst = int(abs(without - value).argmax())
    assert sample == worst
    assert left == pytest.approx(without[worst], rel=1e-8)
    assert change == pytest.approx(abs(without - value).max(), rel=1e-8)


@pytest.mark.parametrize(("n", "unbiased"), [(4, True), (5, True), (5, False), (30, True), (30, False)])
def test_reductions_are_the_differences_without_each_sample(n, unbiased):
    x, y = torch.randn(n, 3, dtype=torch.float64), torch.randn(n, 2, dtype=torch.float64)
    found = leave_one_out_reductions(pack_features([x]), pack_features([y]), unbiased=unbiased)
    whole = hsic_products(pack_features([x]), pack_features([y]), unbiased=unbiased)
    for i in range(n):
        keep = torch.arange(n) != i
        if n == 4 and unbiased:
            left = (torch.zeros(1, 1), torch.zeros(1), torch.zeros(1))  # 3 samples are too few to contribute.
        else:
            left = hsic_products(pack_features([x[keep]]), pack_features([y[keep]]), unbiased=unbiased)
        for total, rest, reduction in zip(whole, left, found, strict=True):
            assert float(total - reduction[0, i]) == pytest.approx(float(rest), abs=1e-9 * float(abs(total).max()))


def test_reductions_in_chunks_equal_those_of_all_layers_at_once(monkeypatch):
    x, y = (pack_features([torch.randn(10, 3) for _ in range(5)]) for _ in range(2))
    whole = leave_one_out_reductions(x, y, unbiased=False)
    monkeypatch.setattr(influence, "_MAX_ENTRIES", 250)
    for one, other in zip(whole, leave_one_out_reductions(x, y, unbiased=False), strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


def test_the_change_is_nan_without_a_sample_that_outweighs_all_others():
    x, y = torch.randn(64, 8), torch.randn(64, 8)
    x[9] *= 1e5
    with pytest.warns(
        UserWarning, match=r"without one sample: a \(nan at dataset index 9, which outweighs all others\)"
    ):
        result = compare_banks(
            bank_of_features([[x]]), bank_of_features([[y]]), thresholds=Thresholds(trace_ratio=None)
        )
    assert result.diagnostics.leave_one_out["a"].sample == 9
    assert np.isnan(result.diagnostics.leave_one_out["a"].change)


def layered(count, size=32, seed=0):
    """Three layers with common noise, so that their errors are correlated."""
    generator = torch.Generator().manual_seed(seed)
    xs, ys = [], []
    for _ in range(count):
        common = torch.randn(size, 4, generator=generator, dtype=torch.float64)
        xs.append([common + 0.1 * torch.randn(size, 4, generator=generator) for _ in range(3)])
        ys.append([z + torch.randn(size, 4, generator=generator) for z in xs[-1]])
    return xs, ys


@pytest.mark.parametrize("case", ["same names", "other names", "one model"])
def test_standard_error_of_the_mean_is_that_of_the_jackknife(case):
    xs, ys = layered(10)
    layers = ("a", "b", "c")
    a = bank_of_features(xs, layers)
    b = a if case == "one model" else bank_of_features(ys, layers if case == "same names" else ("d", "e", "f"))
    result = compare_banks(a, b, thresholds=OFF)
    # The jackknife over batches estimates the same variance, without derivatives.
    left = []
    for i in range(10):
        some = [bank_of_features(zs[:i] + zs[i + 1 :], made.layers) for zs, made in ((xs, a), (ys, b))]
        left.append(compare_banks(some[0], some[0] if case == "one model" else some[1], thresholds=OFF).mean())
    jackknife = np.sqrt(9 / 10 * ((np.array(left) - np.mean(left)) ** 2).sum())
    assert result.mean_standard_error == pytest.approx(jackknife, rel=0.15)
    assert result.mean_standard_error > 0


def test_the_mean_of_one_cell_has_the_standard_error_of_the_cell():
    xs, ys = batches((12, 12, 7, 12))
    result = compare_banks(bank_of_features([[x] for x in xs]), bank_of_features([[y] for y in ys]), thresholds=OFF)
    assert result.mean_standard_error == pytest.approx(result.standard_error.item(), rel=1e-10)
    single = compare_banks(bank_of_features([[xs[0]]]), bank_of_features([[ys[0]]]), thresholds=OFF)
    assert np.isnan(single.mean_standard_error)


def test_a_layer_that_is_nan_is_left_out_of_the_mean_and_its_error():
    xs, ys = layered(6)
    layers = ("a", "b", "c")
    fine = compare_banks(
        bank_of_features([x[:2] for x in xs], layers[:2]),
        bank_of_features([y[:2] for y in ys], layers[:2]),
        thresholds=OFF,
    )
    for x in xs:
        x[2] = torch.zeros(32, 4)
    with pytest.warns(UserWarning, match="no variance: c"):
        result = compare_banks(bank_of_features(xs, layers), bank_of_features(ys, layers), thresholds=OFF)
    assert result.mean() == pytest.approx(fine.mean())
    assert result.mean_standard_error == pytest.approx(fine.mean_standard_error)
