"""Lines over epochs and over depth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from figure_contents import all_texts_are_inside, texts
from lightning_cka.compare.pairing import Pairing
from lightning_cka.diagnostics import Diagnostics, Flag
from lightning_cka.figures.marker_sizes import marker_size
from lightning_cka.plotting import plot_drift, plot_layer_trend, plot_trend
from synthetic_results import LONG, history, result, settling_history


def line_labels(ax):
    return [line.get_label() for line in ax.get_lines()]


def test_trend_has_a_line_and_a_band_per_layer():
    results = history()
    _, ax = plot_trend(results)
    assert line_labels(ax) == ["layer0", "layer1", "layer2"]
    assert ax.get_lines()[1].get_ydata() == pytest.approx([r.matrix[1, 1].item() for r in results])
    low, high = results[0].confidence_interval(0.95)
    band = ax.collections[2].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (pytest.approx(low[2, 2].item()), pytest.approx(high[2, 2].item()))
    assert texts(ax.get_xticklabels()) == ["0", "1", "2", "3"]


def test_which_layers_a_trend_shows():
    assert len(plot_trend(history(layers=30))[1].get_lines()) == 8
    assert line_labels(plot_trend(history(), ["layer2"])[1]) == ["layer2"]
    with pytest.raises(ValueError, match=r"no values of paired layers for \['conv'\]"):
        plot_trend(history(), ["conv"])


def test_a_trend_without_standard_errors():
    without = [result(3, 3, epoch=e) for e in range(3)]
    assert len(plot_trend(without)[1].get_lines()) == 3


def test_the_diagonal_by_depth():
    errors = torch.full((3, 4), 0.02)
    results = [result(epoch=epoch, standard_error=errors, effective_batches=8.0) for epoch in range(2)]
    _, ax = plot_layer_trend(results)
    assert line_labels(ax) == ["epoch 0", "epoch 1"]
    assert np.allclose(ax.lines[0].get_ydata(), results[0].matrix.diagonal())
    assert texts(ax.get_xticklabels()) == ["layer0", "layer1", "layer2"]
    low, high = results[0].confidence_interval(0.95)
    edges = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == pytest.approx((float(low[0, 0]), float(high[2, 2])))
    assert line_labels(plot_layer_trend(results, ["a", "b"])[1]) == ["a", "b"]
    assert all_texts_are_inside(ax.figure)
    assert all_texts_are_inside(plot_layer_trend(results, ["a name that is rather long", "b"])[0])


@pytest.mark.parametrize("plot", [plot_layer_trend, plot_trend])
def test_long_names_fit(plot):
    assert all_texts_are_inside(plot([result(9, 9, LONG, epoch=epoch) for epoch in range(3)])[0])


def test_the_diagonal_by_depth_needs_one_label_per_result_and_the_same_layers():
    with pytest.raises(ValueError, match="one label per result, but got 2 results and 1 labels"):
        plot_layer_trend([result(), result()], ["a"])
    with pytest.raises(ValueError, match="must have the same layers, but one has"):
        plot_layer_trend([result(), result(2, 2)])
    with pytest.raises(ValueError, match="at least one result with layers of the same name"):
        plot_layer_trend([])


def test_the_title_of_lines_of_several_references_says_how_layers_are_paired():
    results = [replace(result(), reference_name=name) for name in ("a", "b")]
    assert plot_layer_trend(results)[1].get_title() == "CKA of layers of the same name"
    pairing = Pairing({"layer0": "layer1"}, "mapping")
    results = [replace(each, pairing=pairing) for each in results]
    assert plot_layer_trend(results)[1].get_title() == "CKA of paired layers"


def marks(ax):
    """The points of the diamonds, line by line."""
    return [list(zip(*line.get_data(), strict=True)) for line in ax.get_lines() if line.get_marker() == "D"]


def legend(ax):
    return texts(ax.get_legend().get_texts())


def test_a_trend_marks_from_where_on_a_layer_has_settled():
    figure, ax = plot_trend(settling_history())
    assert marks(ax) == [[(0, 0.5)], [(1, 0.5)], [(2, 0.5)]]
    assert legend(ax) == ["layer2", "layer1", "layer0", "from here within ±0.01\nof the last value"]
    lines = {line.get_label(): line for line in ax.get_lines()}
    colours = [line.get_markeredgecolor() for line in ax.get_lines() if line.get_marker() == "D"]
    assert colours == [lines[f"layer{i}"].get_color() for i in range(3)]
    assert all_texts_are_inside(figure)
    assert legend(plot_trend(settling_history(), tolerance=0.25)[1])[-1].startswith("from here within ±0.25")


def test_a_trend_without_a_settled_layer_has_no_marks_and_no_legend_for_them():
    chosen = plot_trend(settling_history(layers=6), ["layer5"])[1]  # It moves until the last result.
    wide = plot_trend(settling_history(spread=0.1))[1]  # The intervals are too wide to tell.
    for ax in (chosen, wide, plot_trend(history())[1], plot_trend(settling_history(), tolerance=None)[1]):
        assert marks(ax) == []
        assert not any("within" in text for text in legend(ax))
    with pytest.raises(ValueError, match="tolerance must be greater than 0, but is -1"):
        plot_trend(settling_history(), tolerance=-1)


def test_a_trend_shows_second_opinions_where_a_flag_says_that_they_differ():
    results = history(layers=20)
    name = results[0].layers[6]
    cka = [one.same_named()[name] for one in results]
    for epoch, value in ((2, 0.3), (3, -0.6)):
        flags = (Flag(name, "disagreement", value, 0.15, (1, 2)), Flag(name, "trace_ratio", 30.0, 20.0, (3,)))
        results[epoch] = replace(results[epoch], diagnostics=Diagnostics({}, {}, {}, flags))
    _, ax = plot_trend(results)
    (dashed,) = (line for line in ax.get_lines() if line.get_linestyle() == "--")
    assert np.allclose(dashed.get_ydata(), [np.nan, np.nan, cka[2] + 0.3, cka[3] - 0.6], equal_nan=True)
    assert "second opinion that differs" in dashed.get_label()
    assert len(ax.get_lines()) == 8 + 1 + (name not in line_labels(plot_trend(history(layers=20))[1]))
    assert len(plot_trend(results, [results[0].layers[0]])[1].get_lines()) == 1


def test_the_legend_of_many_lines_over_depth_names_some_of_them():
    figure, ax = plot_layer_trend(history(30))
    assert len(ax.get_lines()) == 30
    assert len(ax.collections) == len(legend(ax)) == 8
    assert {"epoch 0", "epoch 29"} <= set(legend(ax))
    assert ax.get_legend().get_title().get_text() == "8 of 30 lines\nbands: 95 % CI"
    assert all_texts_are_inside(figure)


def test_markers_are_smaller_than_their_distance():
    few, many = (plot_trend(history(count))[1].get_lines()[0] for count in (3, 500))
    assert (few.get_markersize(), many.get_markersize()) == (4, 0)
    assert marker_size(1.0, 36, 5.0) == pytest.approx(1.6)
    assert marker_size(1.0, 72, 5.0) == 0
    assert marker_size(1.0, 72, 5.0, always=True) > 1


def test_a_legend_says_how_many_layers_it_shows_and_what_the_bands_are():
    figure, ax = plot_trend(history(layers=30), level=0.9)
    assert ax.get_legend().get_title().get_text() == "8 of 30 layers\nbands: 90 % CI"
    assert all_texts_are_inside(figure)
    assert plot_trend(history())[1].get_legend().get_title().get_text() == "bands: 95 % CI"
    without = [result(3, 3, epoch=epoch) for epoch in range(3)]
    assert plot_trend(without)[1].get_legend().get_title().get_text() == ""
    figure, _ = plot_drift(history(layers=30))
    assert figure.axes[-1].get_legend().get_title().get_text() == "8 of 30 layers\nbands: 95 % CI"
