"""Leave-one-out values, against computing them without shortcuts."""

from types import SimpleNamespace

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


def test_many_small_batches_are_joined_in_one_pass(monkeypatch):
    """Each record is looked at once, however many wait."""
    looked_at = []
    pairs = SimpleNamespace(numel=lambda: looked_at.append(1) or 4)
    records = [influence.BatchRecord((), SimpleNamespace(pairs=pairs), 1e-7) for _ in range(25)]
    monkeypatch.setattr(influence, "_MAX_JOINED", 40)
    monkeypatch.setattr(influence, "_joined", len)
    assert list(influence.joined_records(records)) == [10, 10, 5]
    assert len(looked_at) == len(records)
