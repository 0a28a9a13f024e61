"""The figure of effective ranks over epochs."""

import numpy as np
import pytest
import torch
from figure_contents import all_texts_are_inside, texts
from lightning_cka.compare.layer_ranks import LayerRank, ranks_with_peaks
from lightning_cka.decisions.rank_history import RankHistory
from lightning_cka.plotting import plot_ranks


def make_history(layers=3, moments=6, batches=8, fallen=(), unit=""):
    """Layer i has a constant rank of 10 + i; those in ``fallen`` fall to 2 in the last but one moment."""
    found = []
    for moment in range(moments):
        values = [2.0 if place in fallen and moment >= moments - 2 else 10.0 + place for place in range(layers)]
        ranks = {f"net.{place}.conv": LayerRank(value, 0.5, batches, value / 2) for place, value in enumerate(values)}
        found.append(ranks_with_peaks(ranks, 64, found[-1] if found else None, moment, moment))
    return RankHistory("Net", tuple(f"{unit}{moment}" for moment in range(moments)), tuple(found))


def lines(ax):
    return [line for line in ax.get_lines() if not line.get_label().startswith("_")]


def marks(ax):
    return [line.get_xydata()[0].tolist() for line in ax.get_lines() if line.get_label() == "_lost"]


def test_each_layer_has_a_line_of_ranks_with_a_band_and_one_of_dimensions():
    history = make_history()
    figure, (ranks, dimensions) = history.plot()
    for ax, values in ((ranks, history.rank), (dimensions, history.effective_dimension)):
        assert np.array_equal([line.get_ydata() for line in lines(ax)], values)
        assert ax.get_ylim()[0] == 0
    assert len(ranks.collections) == 3
    assert ranks.get_ylabel() == "effective rank (≤ 63)"
    assert dimensions.get_xlabel() == "epoch"
    legend = ranks.get_legend()
    assert texts(legend.get_texts()) == ["0.conv", "1.conv", "2.conv"]
    assert legend.get_title().get_text() == "net.*\nbands: 95 % CI"
    assert ranks.get_title() == "Net"
    assert marks(ranks) == []
    assert all_texts_are_inside(figure)


def test_the_first_loss_of_a_layer_is_marked():
    figure, (ranks, _) = plot_ranks(make_history(fallen=(1,)), rank_loss=0.6, title="Run 3")
    assert marks(ranks) == [[4.0, 2.0]]
    assert texts(ranks.get_legend().get_texts())[-1] == "lost > 60 %"
    assert ranks.get_title() == "Run 3"
    assert all_texts_are_inside(figure)


@pytest.mark.parametrize("layers", [12, 100])
def test_some_of_many_layers_are_drawn_and_those_that_lost_rank(layers):
    figure, (ranks, _) = plot_ranks(make_history(layers, 60, fallen=(3, 4)))
    shown = texts(ranks.get_legend().get_texts())
    assert {"0.conv", "3.conv", "4.conv", f"{layers - 1}.conv"} <= set(shown)
    assert ranks.get_legend().get_title().get_text().startswith(f"{len(lines(ranks))} of {layers} layers")
    assert len(lines(ranks)) <= 12
    assert all_texts_are_inside(figure)


def test_chosen_layers_steps_and_unknown_errors():
    history = make_history(batches=2, unit="step ")
    _, (ranks, dimensions) = plot_ranks(history, ["net.2.conv"])
    assert len(lines(ranks)) == 1
    assert dimensions.get_xlabel() == "step"
    assert texts(dimensions.get_xticklabels()) == list("012345")
    assert "bands" not in ranks.get_legend().get_title().get_text()
    assert torch.isnan(history.bounds()[0]).all()
    with pytest.raises(ValueError, match=r"layers: expected some of net.0.conv, .* but got other"):
        plot_ranks(history, ["other"])
