"""Effective dimension and ratios of samples: against the naive reference."""

import naive
import numpy as np
import pytest
import torch
from lightning_cka.compare.layer_statistics import LayerStatistics
from lightning_cka.hsic.stack import pack_features
from misleading_features import compare_features


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_effective_dimension_is_the_mean_over_four_tuples(scale):
    x = torch.randn(9, 4, dtype=torch.float64) * torch.tensor([3.0, 1, 1, 0.2])
    x[2] *= 5
    statistics = LayerStatistics(["a"], torch.device("cpu"))
    packed = pack_features([scale * x + scale])
    statistics.add(packed, packed, range(9))
    found = statistics.result(distributed=False)["a"].effective_dimension
    assert found == pytest.approx(naive.effective_dimension(x.numpy()), rel=1e-10)


def test_effective_dimension_sums_numerator_and_denominator_over_batches():
    x = torch.randn(4096, 16) * torch.linspace(1, 3, 16)
    variances = torch.linspace(1, 3, 16) ** 2
    expected = float(variances.sum() ** 2 / variances.square().sum())
    for batch_size in (16, 4096):  # Unbiased: small batches do not lower it.
        found = compare_features(x, x, batch_size).diagnostics.layers["a"].effective_dimension
        assert found == pytest.approx(expected, rel=0.03)


def test_ratios_are_those_of_the_gram_matrices():
    x = torch.randn(30, 5, dtype=torch.float64)
    x[[4, 17]] *= torch.tensor([[6.0], [9.0]]).double()
    found = compare_features(x, x).diagnostics.layers["a"]
    centered = x - x.mean(0)
    squares = centered.square().sum(1)
    assert [sample for sample, _ in found.trace_ratios[:2]] == [17, 4]
    assert [ratio for _, ratio in found.trace_ratios] == pytest.approx(
        (30 * squares / squares.sum()).sort(descending=True).values[:3].tolist()
    )
    k = naive.fast_gram(centered)
    shift = np.diag(k) / 28 - np.trace(k) / (2 * 29 * 28)
    u = k + shift[:, None] + shift
    np.fill_diagonal(u, 0)
    rows = (u**2).sum(1)
    assert [ratio for _, ratio in found.hsic_ratios] == pytest.approx(sorted(30 * rows / rows.sum())[:-4:-1])
    assert found.hsic_ratio == found.hsic_ratios[0].ratio


def test_ratios_are_those_of_the_whole_probe_set():
    x = torch.randn(64, 5)
    x[50] *= 20
    whole, split = (compare_features(x - x.mean(0), x, size).diagnostics.layers["a"] for size in (64, 16))
    assert split.trace_ratios[0].sample == whole.trace_ratios[0].sample == 50
    assert split.trace_ratio == pytest.approx(whole.trace_ratio, rel=0.1)
    assert len({sample for sample, _ in split.trace_ratios}) == 3


def test_bounds_contain_the_fraction_of_the_top_eigenvalue():
    for scales in (torch.ones(8), torch.tensor([5.0, 1, 1, 1, 1, 1, 1, 1]), torch.tensor([3.0, 2, 1, 0.1, 0, 0, 0, 0])):
        x = torch.randn(4096, 8) * scales
        low, high = compare_features(x, x, 512).diagnostics.layers["a"].top_eigenvalue_bounds
        fraction = scales.square().max() / scales.square().sum()
        assert 0.97 * low < fraction < 1.03 * high
        assert high < 1.1
