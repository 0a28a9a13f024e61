"""Figures that are drawn into axes of the user's figure stay in their part of it."""

import itertools
from dataclasses import replace

import pytest
import torch
from figure_contents import all_texts_are_inside, texts
from lightning_cka import GramBank, plot_cka
from lightning_cka.compare.flags import Flag
from lightning_cka.plotting import plot_drift, plot_layer_trend, plot_samples, plot_trend
from matplotlib.figure import Figure
from synthetic_results import LONG, diagnostics, result, settling_history
from torch import nn

LAYOUTS = ["constrained", "tight", "compressed", None]
FLAGS = diagnostics(*(Flag("block.1.out", reason, 83.0, 20.0, (17,)) for reason in ("trace_ratio", "standard_error")))


def overlapping(figure):
    """Pairs of axes that overlap, with their labels, titles and colour bars."""
    figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    return [(i, j) for i, j in itertools.combinations(range(len(boxes)), 2) if boxes[i].overlaps(boxes[j])]


def shares(figure, lines, across):
    """Width and height of each axes, as parts of an even share of the figure."""
    whole = figure.bbox
    return [
        share
        for ax in figure.axes
        for share in (ax.bbox.width / whole.width * across, ax.bbox.height / whole.height * lines)
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_heatmaps_in_subplots_keep_their_size_and_do_not_overlap(layout):
    figure = Figure((8, 7.2), layout=layout)
    flagged = result(8, 8, "block.{}.out", diagnostics=FLAGS)
    kinds = (flagged, result(4, 4, LONG), result(100, 100), flagged)
    for ax, drawn in zip(figure.subplots(2, 2).flat, kinds, strict=True):
        plot_cka(drawn, ax)
    assert overlapping(figure) == []
    assert min(shares(figure, 2, 2)) >= 0.4
    assert all_texts_are_inside(figure)


@pytest.mark.parametrize("size", [(8, 6), (6.9, 5)])
@pytest.mark.parametrize("layers", [3, 5, 8])  # The labels of 5 are rotated in axes that have their size.
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_heatmap_beside_other_plots(layout, layers, size):
    figure = Figure(size, layout=layout)
    grid = figure.subplots(2, 2)
    for ax in grid.flat:
        ax.set(title="a title", xlabel="time", ylabel="value")
    plot_cka(result(layers, layers, diagnostics=diagnostics()), grid[0, 0])
    assert [pair for pair in overlapping(figure) if 0 in pair] == []
    others = [ax.get_position().bounds for ax in (grid[0, 1], grid[1, 0], grid[1, 1])]
    if layout is None:
        untouched = [ax.get_position().bounds for ax in Figure(size).subplots(2, 2).flat[1:]]
        assert others == untouched


@pytest.mark.parametrize("layout", LAYOUTS)
def test_heatmaps_in_subfigures(layout):
    figure = Figure((8, 4), layout=layout)
    for part in figure.subfigures(1, 2):
        plot_cka(result(8, 8, "block.{}.out", diagnostics=FLAGS), part.subplots())
    assert overlapping(figure) == []
    assert min(shares(figure, 1, 2)) >= 0.4


def test_drift_maps_in_subplots():
    for layout in LAYOUTS:
        figure = Figure((8, 4), layout=layout)
        for ax in figure.subplots(1, 2):
            plot_drift(settling_history(5, 3), ax)
        assert overlapping(figure) == []
        assert min(shares(figure, 1, 2)) >= 0.4


def test_notes_in_own_axes_are_one_short_line_that_can_be_left_out():
    drawn = result(8, 8, "block.{}.out", diagnostics=FLAGS)
    _, ax = plot_cka(drawn, Figure((8, 4), layout="constrained").subplots(1, 2)[0])
    assert texts(ax.texts) == ["⚠ see the result's flags"]
    assert not ax.texts[0].get_in_layout()
    _, ax = plot_cka(drawn, Figure((8, 4)).subplots(1, 2)[0], flags=False)
    assert texts(ax.texts) == []


def test_drawing_again_into_the_same_axes():
    figure = Figure((8, 4))
    first, second = figure.subplots(1, 2)
    for ax in (first, second):
        plot_cka(result(8, 8), ax)
    before = first.get_position().bounds
    first.clear()
    plot_cka(result(8, 8), first)
    assert first.get_position().bounds == pytest.approx(before)


def test_tight_layout_afterwards():
    figure = Figure((8, 4))
    for ax in figure.subplots(1, 2):
        plot_cka(result(8, 8, "block.{}.out", diagnostics=FLAGS), ax)
    for _ in range(2):
        figure.tight_layout()
        assert overlapping(figure) == []
        assert min(shares(figure, 1, 2)) >= 0.4
        assert all_texts_are_inside(figure)
    figure.set_size_inches(11, 7)
    assert overlapping(figure) == []


LONG_RUN = [
    replace(each, model_name="BertForSequenceClassification", reference_name="pretrained last week (frozen)")
    for each in settling_history(5, 3)
]


@pytest.mark.parametrize("plot", [plot_drift, plot_trend, plot_layer_trend])
def test_titles_and_notes_of_lines_and_drift_maps_stay_in_their_cell(plot):
    figure = Figure((6.9, 2.6))
    for ax in figure.subplots(1, 2):
        plot(LONG_RUN, ax=ax)
    assert overlapping(figure) == []
    assert all_texts_are_inside(figure)
    if plot is plot_layer_trend:  # The title has the reference.
        assert texts(figure.axes[0].get_legend().get_texts()) == [f"epoch {epoch}" for epoch in (4, 3, 2, 1, 0)]


def test_maps_of_samples_in_subplots_with_their_legends():
    bank = GramBank.from_model(nn.Sequential(nn.Linear(8, 8)), [torch.randn(20, 8)], progress_bar=False)
    figure = Figure((6.9, 2.6))
    for ax in figure.subplots(1, 2):
        plot_samples(bank, None, [f"a long label {i % 3}" for i in range(20)], marked=[3], ax=ax)
    assert overlapping(figure) == []
    assert all_texts_are_inside(figure)
