"""The seed ceiling in figures of lines."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from figure_contents import all_texts_are_inside, texts
from lightning_cka.compare.left_out_batches import LeftOutBatches
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.plotting import plot_drift, plot_layer_trend, plot_trend
from matplotlib.figure import Figure
from synthetic_results import history, settling_history


def ceiling(layers=("layer0", "layer1", "layer2"), seeds=5, **options):
    values = torch.linspace(0.9, 0.6, len(layers), dtype=torch.float64)
    errors = torch.full_like(values, 0.01)
    record = LeftOutBatches(tuple("01234567"), torch.ones(8).double(), tuple(layers), values[:, None].expand(-1, 8))
    seed_errors = errors if seeds > 2 else torch.full_like(errors, torch.nan)
    return SeedCeiling(tuple(layers), values, errors, seed_errors, seeds, record, **options)


def dashed(ax):
    return [line for line in ax.lines if line.get_label() == "_ceiling"]


def bands(ax):
    return [each.get_paths()[0].vertices[:, 1] for each in ax.collections]


def test_a_dashed_line_for_each_layer_over_epochs():
    top = ceiling()
    figure, ax = plot_trend(history(), ceiling=top)
    lines = dashed(ax)
    assert [set(line.get_ydata()) for line in lines] == [{value} for value in top.values.tolist()]
    own = [line for line in ax.lines if line.get_label().startswith("layer")]
    assert [line.get_color() for line in lines] == [line.get_color() for line in own]
    assert all(line.get_xdata()[0] <= 0 and line.get_xdata()[1] >= 3 for line in lines)
    low, high = top.bounds(0.95)
    found = bands(ax)[1::2]  # Those of the lines are the others.
    assert [(band.min(), band.max()) for band in found] == [
        pytest.approx((float(a), float(b))) for a, b in zip(low, high, strict=True)
    ]
    assert texts(ax.get_legend().get_texts())[-1] == "seed ceiling (5 seeds)\nchance: 0"
    assert all_texts_are_inside(figure)


def test_one_dashed_line_over_depth():
    top = ceiling()
    figure, ax = plot_layer_trend(history()[-1], ceiling=top, level=0.8)
    (line,) = dashed(ax)
    assert np.array_equal(line.get_ydata(), top.values)
    low, high = top.bounds(0.8)
    assert (bands(ax)[0].min(), bands(ax)[0].max()) == pytest.approx((float(low.min()), float(high.max())))
    assert texts(ax.get_legend().get_texts())[-1] == "seed ceiling (5 seeds)\nchance: 0"
    assert all_texts_are_inside(figure)


def test_below_a_drift_map_and_in_own_axes():
    results = settling_history()
    figure, ax = plot_drift(results, ceiling=ceiling())
    trend = next(each for each in figure.axes if dashed(each))
    assert trend is not ax
    assert trend.get_xlim() == ax.get_xlim()
    assert all_texts_are_inside(figure)
    figure = Figure((9, 4))
    for each, plot in zip(figure.subplots(1, 2), (plot_trend, plot_layer_trend), strict=True):
        plot(results, ax=each, ceiling=ceiling())
        assert dashed(each)
    assert all_texts_are_inside(figure)


def test_layers_without_a_ceiling_have_no_line():
    _, ax = plot_trend(history(), ceiling=ceiling(["layer1", "other"]))
    assert [line.get_ydata()[0] for line in dashed(ax)] == pytest.approx([np.nan, 0.9, np.nan], nan_ok=True)


def test_what_the_legend_says_without_a_band_or_a_level_of_chance():
    _, ax = plot_trend(history(), ceiling=ceiling(seeds=2))
    assert texts(ax.get_legend().get_texts())[-1] == "seed ceiling (2 seeds: no band)\nchance: 0"
    biased = [replace(each, unbiased=False) for each in history()]
    _, ax = plot_trend(biased, ceiling=ceiling(unbiased=False))
    assert texts(ax.get_legend().get_texts())[-1] == "seed ceiling (5 seeds)"


@pytest.mark.parametrize("plot", [plot_drift, plot_trend, plot_layer_trend])
def test_a_ceiling_of_another_kernel_raises(plot):
    with pytest.raises(ValueError, match="the seed ceiling has kernel 'rbf', but the result has 'linear'"):
        plot(history(), ceiling=ceiling(kernel="rbf"))
