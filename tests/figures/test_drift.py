"""The drift map, with the trend below it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from figure_contents import all_texts_are_inside, is_inside, lay_out, neighbours_overlap, texts
from lightning_cka import CKAResult
from lightning_cka.compare.flags import Flag
from lightning_cka.plotting import plot_drift
from matplotlib import rc_context
from matplotlib.figure import Figure
from synthetic_results import LONG, history, result, settling_history, with_flags


@pytest.mark.parametrize(("count", "layers"), [(2, 1), (2, 60), (4, 3), (60, 1), (60, 60)])
def test_a_drift_figure_has_the_trend_under_the_map(count, layers):
    figure, ax = plot_drift(history(count, layers))
    trend = figure.axes[-1]
    size = lay_out(figure)
    for axes in (ax, trend):
        labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]
        assert all(is_inside(label.get_window_extent(), size) for label in labels)
    assert trend.get_legend().get_window_extent().x1 <= size[0]
    assert trend.get_window_extent().y1 < ax.xaxis.label.get_window_extent().y0
    assert trend.get_xlim() == ax.get_xlim()


def test_long_names_fit():
    assert all_texts_are_inside(plot_drift(history(3, 9, LONG))[0])


def test_the_users_axes_hold_the_map_alone():
    own = Figure().add_subplot()
    figure, ax = plot_drift(history(), own)
    assert ax is own
    assert len(figure.axes) == 1


def test_a_drift_map_marks_what_is_flagged_at_some_epoch():
    results = history()
    results[2] = with_flags(results[2], Flag("layer1", "trace_ratio", 30.0, 20.0, (4,)))
    figure, ax = plot_drift(results)
    assert texts(ax.get_yticklabels()) == ["layer0", "⚠ layer1", "layer2"]
    assert texts(ax.texts) == ["⚠ at epoch 2: see the heatmap"]
    assert texts(plot_drift(history())[1].texts) == []
    width, height = lay_out(figure)
    box, title = ax.texts[0].get_window_extent(), ax.title.get_window_extent()
    assert box.x1 <= width
    assert box.y1 <= height
    assert not box.overlaps(title)


def test_the_note_on_flags_says_whether_its_numbers_are_epochs_or_steps():
    flag = Flag("layer1", "trace_ratio", 30.0, 20.0, (4,))
    flagged = [with_flags(each, flag) for each in history(3)]
    assert texts(plot_drift(flagged)[1].texts) == ["⚠ at epochs 0, 1, 2: see the heatmap"]
    by_steps = [replace(each, epoch=None) for each in flagged]
    assert texts(plot_drift(by_steps)[1].texts) == ["⚠ at steps 0, 10, 20: see the heatmap"]


def test_drift_is_layer_by_epoch():
    results = [result(3, 3, epoch=e, step=10 * e) for e in range(4)]
    _, ax = plot_drift(results)
    assert ax.get_images()[0].get_array().shape == (3, 4)
    assert np.allclose(ax.get_images()[0].get_array()[:, 0], results[0].matrix.diagonal())
    assert (ax.get_xlabel(), texts(ax.get_xticklabels())) == ("epoch", ["0", "1", "2", "3"])
    twice = [result(3, 3, epoch=e // 2, step=10 * e) for e in range(4)]
    assert plot_drift(twice)[1].get_xlabel() == "step"
    with pytest.raises(ValueError, match="layers of the same name"):
        plot_drift([CKAResult(torch.ones(1, 1), "a", "b")])
    with pytest.raises(ValueError, match="at least one result"):
        plot_drift([])


def marks(ax):
    return [
        point for line in ax.get_lines() if line.get_marker() == "D" for point in zip(*line.get_data(), strict=True)
    ]


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize(("count", "layers"), [(2, 1), (5, 3), (60, 60)])
def test_a_drift_map_marks_from_where_on_a_layer_has_settled(count, layers, flagged):
    results = settling_history(count, layers)
    if flagged:
        results[1] = with_flags(results[1], Flag("layer0", "trace_ratio", 30.0, 20.0, (4,)))
    figure, ax = plot_drift(results)
    assert marks(ax) == [(row, row) for row in range(min(layers, count - 1))]
    notes = ["◇ from here within ±0.01 of the last value (95%)", *["⚠ at epoch 1: see the heatmap"] * flagged]
    assert sorted(texts(ax.texts)) == sorted(notes)
    size = lay_out(figure)
    boxes = [each.get_window_extent() for each in (ax.title, *ax.texts)]
    assert all(is_inside(box, size) for box in boxes)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert all(box.y0 >= ax.get_window_extent().y1 for box in boxes)


def test_a_drift_map_without_marks():
    for results, tolerance in ((history(), 0.01), (settling_history(spread=0.1), 0.01), (settling_history(), None)):
        figure, ax = plot_drift(results, tolerance=tolerance)
        assert marks(ax) == marks(figure.axes[-1]) == []
        assert texts(ax.texts) == []


def test_marks_and_their_line_are_in_the_users_axes():
    _, ax = plot_drift(settling_history(), Figure().add_subplot(), tolerance=0.02)
    assert len(marks(ax)) == 3
    assert texts(ax.texts) == ["◇ from here within ±0.02 of the last value (95%)"]


@pytest.mark.parametrize("layers", [12, 40, 100])
def test_labels_do_not_overlap_in_a_figure_whose_size_the_user_chose(layers):
    with rc_context({"figure.figsize": (3.3, 2.8), "font.size": 7.0}):
        figure, ax = plot_drift(settling_history(12, layers))
    assert all_texts_are_inside(figure)
    assert not neighbours_overlap(ax.get_yticklabels())
    assert ax.xaxis.label.get_window_extent().y0 > figure.axes[-1].get_window_extent().y1


def test_the_trend_is_as_wide_as_the_map():
    figure, ax = plot_drift(history(5, 12, "encoder.layer.{}.attention"))
    trend = figure.axes[-1]
    lay_out(figure)
    assert (trend.bbox.x0, trend.bbox.x1) == pytest.approx((ax.bbox.x0, ax.bbox.x1))
