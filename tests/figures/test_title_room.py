"""Titles use the room that a figure has, and no more."""

from dataclasses import replace

import pytest
import torch
from figure_contents import all_texts_are_inside
from lightning_cka import CKAResult, plot_cka
from lightning_cka.compare.layer_ranks import LayerRank, ranks_with_peaks
from lightning_cka.decisions.model_comparison import ModelComparison
from lightning_cka.decisions.rank_history import RankHistory
from lightning_cka.figures.layout import new_axes
from lightning_cka.figures.title_room import title_lengths
from lightning_cka.plotting import (
    plot_comparison,
    plot_convergence,
    plot_drift,
    plot_layer_trend,
    plot_measures,
    plot_models,
    plot_ranks,
    plot_trend,
)
from matplotlib import rc_context
from matplotlib.figure import Figure
from synthetic_results import history, self_result

COLUMN = {"figure.figsize": (3.3, 2.8), "font.size": 7.0}
NAMES = {"model_name": "BERTFORSEQUENCECLASSIFICATION", "reference_name": "pretrained last week (frozen)"}
RANKS = RankHistory(
    3 * NAMES["model_name"], ("0",), (ranks_with_peaks({"net.0": LayerRank(9.0, 0.5, 8, 4.0)}, 64, None, 0, 0),)
)
RUN = [replace(each, **NAMES) for each in history(3, 12, "encoder.layer.{}.output")]


def test_titles_are_centered_within_the_figure_and_between_those_of_neighbours():
    figure = Figure((10, 5))
    alone = figure.add_axes((0.4, 0.4, 0.2, 0.2))
    assert title_lengths([alone]) == (72, 51)  # 5 inches, and a title of 10 inches is too long to be read.
    left = figure.add_axes((0.1, 0.4, 0.2, 0.2))
    wide, high = title_lengths([left, alone])
    assert wide == 30  # The centers have a distance of 3 inches.
    assert high == 51
    below = figure.add_axes((0.4, 0.1, 0.2, 0.2))
    wide, high = title_lengths([alone, below])
    assert wide == 22  # A colour bar is at the right of several lines.
    assert high == 14


@pytest.mark.parametrize(
    "plot",
    [
        lambda: plot_cka(RUN[0]),
        lambda: plot_drift(RUN),
        lambda: plot_trend(RUN),
        lambda: plot_layer_trend(RUN),
        lambda: plot_comparison(RUN),
        lambda: plot_measures({"cka": RUN}),
        lambda: plot_measures({"cka": RUN[0]}),
        lambda: plot_convergence({"a": replace(self_result(3), **NAMES), "b": replace(self_result(3), **NAMES)}),
        lambda: plot_ranks(RANKS),
    ],
)
def test_long_titles_fit_into_a_figure_and_into_a_column_of_a_paper(plot):
    for style in ({}, COLUMN):
        with rc_context(style):
            figure, _ = plot()
            assert not style or figure.get_figwidth() == pytest.approx(3.3)
            assert all_texts_are_inside(figure)


@pytest.mark.parametrize("layers", [["encoder.layer.11.attention.output.dense"], ["a", "b"]])
def test_many_models_have_titles_that_fit(layers):
    """Two small heatmaps beside a map need more than the width of a column."""
    result = CKAResult(torch.eye(2), ("a", "b"), ("a", "b"), self_comparison=True, num_samples=64, measure="mutual_knn")
    found = ModelComparison(torch.eye(2) / 2 + 0.5, torch.zeros(2, 2), ("a", "b"), 8.0, dict.fromkeys(layers, result))
    for style in ({}, COLUMN):
        with rc_context(style):
            figure, _ = plot_models(found)
            assert all_texts_are_inside(figure)
            title = figure.axes[2].get_title()
            assert title.startswith("mutual kNN")
            assert style or title.endswith("dense" if len(layers) == 1 else "mean of 2 layers")


def test_a_wide_figure_has_the_whole_names():
    with rc_context({"figure.figsize": (9.0, 5.0)}):
        title = plot_trend(RUN)[1].get_title()
    assert title == "CKA of BERTFORSEQUENCECLASSIFICATION with pretrained last week (frozen)"
    assert new_axes("ab", "ab").figure.get_figwidth() < 5
    assert plot_cka(RUN[0])[1].get_ylabel().startswith("layer of BERTFORSEQ")
