"""Intervals, and the sentence in their place if there are too few batches."""

import math

import pytest
import torch
from gram_banks import bank_of_features
from lightning_cka import compare_banks
from lightning_cka.compare.flags import Thresholds
from lightning_cka.compare.intervals import interval, too_few_batches
from lightning_cka.compare.tables import result_table
from lightning_cka.figures.drift import plot_drift
from lightning_cka.figures.heatmap import plot_cka
from sample_result import make_result

OFF = Thresholds.off()


def compared(sizes):
    torch.manual_seed(0)
    xs = [[torch.randn(n, 4)] for n in sizes]
    ys = [[x + torch.randn(len(x), 4)] for (x,) in xs]
    return compare_banks(bank_of_features(xs), bank_of_features(ys), thresholds=OFF)


@pytest.mark.parametrize("sizes", [(256, 20), (64, 64, 64), (64,), (512, 64, 64, 64)])
def test_few_effective_batches_have_no_interval(sizes):
    result = compared(sizes)
    number = f"{result.effective_batches:.1f}"
    with pytest.warns(
        UserWarning, match=f"no confidence interval: the probe set has {number} effective batches"
    ) as got:
        low, high = result.confidence_interval()
    assert got[0].filename == __file__
    assert low.isnan().all()
    assert high.isnan().all()
    assert "±" not in result_table(result)
    assert f"{number} effective batches, but an interval needs about four" in result_table(result)
    trend = plot_drift([result, result])[0].axes[-1]
    assert all(not band.get_paths() or math.isnan(band.get_datalim(trend.transData).x0) for band in trend.collections)
    assert "±" not in plot_cka(result, add_text=True)[1].texts[0].get_text()


def test_four_batches_of_nearly_equal_size_have_an_interval():
    result = compared((64, 64, 64, 50))
    low, high = result.confidence_interval()
    assert (low < result.matrix).all()
    assert (result.matrix < high).all()
    assert "±" in result_table(result)
    assert "no confidence" not in result_table(result)
    assert plot_drift([result, result])[0].axes[-1].collections[0].get_paths()
    assert "±" in plot_cka(result, add_text=True)[1].texts[0].get_text()


def test_the_number_can_be_unknown_or_undefined():
    assert too_few_batches(None) == ""
    assert "the probe set has no effective batches" in too_few_batches(math.nan)
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), but is 2"):
        interval(torch.zeros(1), torch.zeros(1), 1.0, 2)
    with pytest.warns(UserWarning, match="has 2.0 effective batches"):
        assert make_result(effective_batches=2.0).confidence_interval()[0].isnan().all()
