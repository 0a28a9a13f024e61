"""Figures name the measure that they show, and no other."""

import re
from dataclasses import replace

import pytest
import torch
from figure_contents import all_texts_are_inside
from gram_banks import make_bank
from lightning_cka import MinibatchMutualKNN, MinibatchRidge, MinibatchRSA, compare_banks, trajectories
from lightning_cka.compare.flags import Flag, Thresholds
from lightning_cka.plotting import (
    plot_cka,
    plot_comparison,
    plot_convergence,
    plot_difference,
    plot_drift,
    plot_layer_trend,
    plot_trajectories,
    plot_trajectory,
    plot_trend,
)
from matplotlib.text import Text
from measure_cases import TITLES, over_measures
from synthetic_results import with_flags

OFF = Thresholds.off()
SIZES = (16,) * 5
METRICS = {"mutual_knn": MinibatchMutualKNN, "rsa": MinibatchRSA, "ridge": MinibatchRidge}


def history(measure):
    banks = [make_bank(epoch, sizes=SIZES, epoch=epoch, step=10 * epoch) for epoch in range(3)]
    return [compare_banks(bank, banks[0], measures=measure, thresholds=OFF) for bank in banks], banks


def words(figure):
    return " | ".join(label.get_text() for label in figure.findobj(Text) if label.get_text())


def all_figures(results, banks, measure):
    by_layer = trajectories(banks, measures=measure, thresholds=OFF)
    flagged = with_flags(
        results[1],
        *(Flag("a", reason, 1.0, 0.5, (3,)) for reason in ("leave_one_out", "influence", "dominant_direction")),
    )
    return {
        "heatmap": plot_cka(flagged)[0],
        "comparison": plot_comparison(results)[0],
        "drift": plot_drift(results)[0],
        "trend": plot_trend(results)[0],
        "layer trend": plot_layer_trend(results)[0],
        "difference": plot_difference(results[2].difference(results[1]))[0],
        "intervals": plot_difference(results[2].difference(results[1]), all_pairs=False)[0],
        "trajectory": plot_trajectory(by_layer["a"])[0],
        "trajectories": plot_trajectories(by_layer)[0],
        "convergence": plot_convergence(by_layer)[0],
    }


@over_measures
def test_figures_name_their_measure_and_no_other(measure):
    for name, figure in all_figures(*history(measure), measure).items():
        shown = words(figure)
        assert TITLES[measure] in shown, name
        if measure != "ridge":
            assert ("CKA" in shown) == (measure == "cka"), (name, shown)
        assert len(re.findall(r"(?<!ridge )CKA", shown)) == 0 or measure == "cka", (name, shown)
        assert all_texts_are_inside(figure), name


def test_parameters_are_shown():
    figure, _ = plot_cka(replace(history("mutual_knn")[0][1], measure="mutual_knn(0.2)"))
    assert "mutual kNN (0.2)" in words(figure)


def test_results_of_several_measures_side_by_side_are_told_apart():
    results = [history(measure)[0][1] for measure in ("cka", "rsa")]
    for draw in (plot_comparison, plot_layer_trend):
        shown = words(draw(results)[0])
        assert "similarity" in shown
        assert "epoch 1: CKA" in shown
        assert "epoch 1: RSA" in shown


@pytest.mark.parametrize("measure", METRICS)
def test_a_metric_draws_its_measure(measure):
    metric = METRICS[measure](2)
    metric.update([torch.randn(16, 3), torch.randn(16, 5)])
    assert TITLES[measure] in words(metric.plot()[0])
