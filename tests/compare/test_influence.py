"""Leaving out single samples, and the standard error of a mean: against doing it the long way."""

import naive
import numpy as np
import pytest
import torch
from lightning_cka import GramBank, compare_banks, influence
from lightning_cka.compare.flags import Thresholds
from lightning_cka.compare.influence import losses
from lightning_cka.hsic.products import hsic_products
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch

OFF = Thresholds(None, None, None, None)


def bank(batches, layers=("a",)):
    made, start = GramBank(layers, "model"), 0
    for index, features in enumerate(batches):
        samples = tuple(range(start, start + len(features[0])))
        start += len(samples)
        made.add(BankBatch(index, pack_features(features), str(index), samples))
    return made


def batches(sizes=(12, 12, 7), d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xs = [torch.randn(n, d, generator=generator, dtype=torch.float64) for n in sizes]
    return xs, [x[:, :2] + torch.randn(len(x), 2, generator=generator) for x in xs]


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("sizes", [(12, 12, 7), (20,), (5, 5, 5, 5)])
@pytest.mark.parametrize("factor", [1.0, 30.0])
def test_leave_one_out_is_what_computing_anew_gives(sizes, unbiased, factor):
    xs, ys = batches(sizes)
    xs[-1][2] *= factor
    hsic = naive.unbiased_hsic if unbiased else naive.biased_hsic
    weight = (lambda n: n * (n - 3)) if unbiased else (lambda n: (n - 1) ** 2)
    columns = ([[x.numpy()] for x in xs], [[y.numpy()] for y in ys])
    value = naive.minibatch_cka(*columns, hsic, weight)[0, 0]
    without = naive.leave_one_out([x.numpy() for x in xs], [y.numpy() for y in ys], hsic, weight)
    result = compare_banks(bank([[x] for x in xs]), bank([[y] for y in ys]), unbiased=unbiased, thresholds=OFF)
    assert result.matrix.item() == pytest.approx(value, rel=1e-10)
    sample, left, change = result.diagnostics.leave_one_out["a"]
    worst = int(abs(without - value).argmax())
    assert sample == worst
    assert left == pytest.approx(without[worst], rel=1e-8)
    assert change == pytest.approx(abs(without - value).max(), rel=1e-8)


@pytest.mark.parametrize(("n", "unbiased"), [(4, True), (5, True), (5, False), (30, True), (30, False)])
def test_a_batch_loses_what_its_samples_hold(n, unbiased):
    x, y = torch.randn(n, 3, dtype=torch.float64), torch.randn(n, 2, dtype=torch.float64)
    found = losses(pack_features([x]), pack_features([y]), unbiased=unbiased)
    whole = hsic_products(pack_features([x]), pack_features([y]), unbiased=unbiased)
    for i in range(n):
        keep = torch.arange(n) != i
        if n == 4 and unbiased:
            left = (torch.zeros(1, 1), torch.zeros(1), torch.zeros(1))  # Too few samples to add anything.
        else:
            left = hsic_products(pack_features([x[keep]]), pack_features([y[keep]]), unbiased=unbiased)
        for total, rest, loss in zip(whole, left, found, strict=True):
            assert float(total - loss[0, i]) == pytest.approx(float(rest), abs=1e-9 * float(abs(total).max()))


def test_few_pairs_at_a_time_lose_what_all_at_once_lose(monkeypatch):
    x, y = (pack_features([torch.randn(10, 3) for _ in range(5)]) for _ in range(2))
    whole = losses(x, y, unbiased=False)
    monkeypatch.setattr(influence, "_ENTRIES", 250)
    for one, other in zip(whole, losses(x, y, unbiased=False), strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


def test_a_sample_that_holds_nearly_everything_leaves_nothing_to_tell():
    x, y = torch.randn(64, 8), torch.randn(64, 8)
    x[9] *= 1e5
    with pytest.warns(
        UserWarning, match=r"without one single sample: a \(cannot be told, as it outweighs all others, at sample 9\)"
    ):
        result = compare_banks(bank([[x]]), bank([[y]]), thresholds=Thresholds(trace_ratio=None))
    assert result.diagnostics.leave_one_out["a"].sample == 9
    assert np.isnan(result.diagnostics.leave_one_out["a"].change)


def layered(count, size=32, seed=0):
    """Three layers that share their noise, so that they err together."""
    generator = torch.Generator().manual_seed(seed)
    xs, ys = [], []
    for _ in range(count):
        common = torch.randn(size, 4, generator=generator, dtype=torch.float64)
        xs.append([common + 0.1 * torch.randn(size, 4, generator=generator) for _ in range(3)])
        ys.append([z + torch.randn(size, 4, generator=generator) for z in xs[-1]])
    return xs, ys


@pytest.mark.parametrize("case", ["same named", "other names", "within"])
def test_standard_error_of_the_mean_is_the_delta_methods(case):
    xs, ys = layered(10)
    layers = ("a", "b", "c")
    a = bank(xs, layers)
    b = a if case == "within" else bank(ys, layers if case == "same named" else ("d", "e", "f"))
    result = compare_banks(a, b, thresholds=OFF)
    # The jackknife over batches estimates the same variance, without derivatives.
    left = []
    for i in range(10):
        some = [bank(zs[:i] + zs[i + 1 :], made.layers) for zs, made in ((xs, a), (ys, b))]
        left.append(compare_banks(some[0], some[0] if case == "within" else some[1], thresholds=OFF).mean())
    jackknife = np.sqrt(9 / 10 * ((np.array(left) - np.mean(left)) ** 2).sum())
    assert result.mean_standard_error == pytest.approx(jackknife, rel=0.15)
    assert result.mean_standard_error > 0


def test_standard_error_of_one_cells_mean_is_that_cells():
    xs, ys = batches((12, 12, 7, 12))
    result = compare_banks(bank([[x] for x in xs]), bank([[y] for y in ys]), thresholds=OFF)
    assert result.mean_standard_error == pytest.approx(result.standard_error.item(), rel=1e-10)
    single = compare_banks(bank([[xs[0]]]), bank([[ys[0]]]), thresholds=OFF)
    assert np.isnan(single.mean_standard_error)


def test_a_layer_that_is_nan_is_left_out_of_the_mean_and_its_error():
    xs, ys = layered(6)
    layers = ("a", "b", "c")
    fine = compare_banks(bank([x[:2] for x in xs], layers[:2]), bank([y[:2] for y in ys], layers[:2]), thresholds=OFF)
    for x in xs:
        x[2] = torch.zeros(32, 4)
    with pytest.warns(UserWarning, match="no variance: c"):
        result = compare_banks(bank(xs, layers), bank(ys, layers), thresholds=OFF)
    assert result.mean() == pytest.approx(fine.mean())
    assert result.mean_standard_error == pytest.approx(fine.mean_standard_error)
