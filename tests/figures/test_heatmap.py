"""Figures: which axis is which, ranges, ticks, and what cannot be drawn."""

import itertools

import numpy as np
import pytest
import torch
from lightning_cka import CKAResult, plot_cka
from lightning_cka.compare.diagnostics import Diagnostics
from lightning_cka.compare.flags import Flag
from lightning_cka.figures.canvas import MAX_TICKS, render, short_labels, tick_places
from lightning_cka.plotting import plot_drift, plot_trend
from matplotlib.figure import Figure

LONG = "backbone.encoder.stages.{}.blocks.attention.self_attention.out_projection"


def result(rows=3, columns=4, pattern="layer{}", **kwargs):
    matrix = torch.linspace(-0.1, 1, rows * columns).reshape(rows, columns)
    names = [[pattern.format(i) for i in range(n)] for n in (rows, columns)]
    return CKAResult(matrix, *names, model_name="Live", reference_name="initial", **({"epoch": 2, "step": 30} | kwargs))


def texts(labels):
    return [label.get_text() for label in labels]


def test_rows_are_the_model_upwards_and_columns_the_reference():
    figure, ax = plot_cka(result())
    image = ax.get_images()[0]
    assert image.origin == "lower"
    assert np.allclose(image.get_array(), result().matrix)
    assert image.get_clim() == (0, 1)
    assert image.get_cmap().name == "magma"
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("Live", "initial")
    assert texts(ax.get_yticklabels()) == ["layer0", "layer1", "layer2"]
    assert texts(ax.get_xticklabels()) == ["layer0", "layer1", "layer2", "layer3"]
    assert ax.get_title() == "epoch 2, step 30"
    assert isinstance(figure, Figure)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 4), (20, 20), (100, 100), (3, 90), (90, 3)])
@pytest.mark.parametrize("pattern", ["layer{}", LONG])
def test_everything_is_inside_the_figure_and_nothing_overlaps(rows, columns, pattern):
    figure, ax = plot_cka(result(rows, columns, pattern))
    height, width, _ = render(figure).shape
    assert max(height, width) <= 1600
    boxes = [label.get_window_extent() for label in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    boxes += [ax.xaxis.label.get_window_extent(), ax.yaxis.label.get_window_extent(), ax.title.get_window_extent()]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert len(labels) <= MAX_TICKS
        extents = [label.get_window_extent() for label in labels]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(extents))


def test_nan_cells_are_grey_and_said():
    matrix = torch.eye(3)
    matrix[1] = torch.nan
    _, ax = plot_cka(CKAResult(matrix, "abc", "abc"))
    assert ax.get_images()[0].get_array().mask[1].all()
    bar = ax.child_axes[0]
    assert texts(bar.texts) == ["grey: nan"]
    assert texts(plot_cka(result())[1].child_axes[0].texts) == []


def test_values_in_cells():
    _, ax = plot_cka(result(2, 2), add_text=True)
    assert texts(ax.texts) == ["-0.10", "0.27", "0.63", "1.00"]
    assert [t.get_color() for t in ax.texts] == ["white", "white", "black", "black"]


def test_values_in_cells_carry_their_standard_errors():
    errors = torch.tensor([[0.01, 0.02], [0.03, 0.04]])
    _, ax = plot_cka(result(2, 2, standard_error=errors), add_text=True)
    assert texts(ax.texts) == ["-0.100\n±0.010", "0.267\n±0.020", "0.633\n±0.030", "1.000\n±0.040"]
    _, ax = plot_cka(result(2, 2, standard_error=torch.full((2, 2), torch.nan)), add_text=True)
    assert texts(ax.texts)[0] == "-0.10"  # A single batch: nothing is known.


def flagged(*flags):
    return Diagnostics(flags=flags, sample_kind="dataset index")


def test_flagged_layers_are_marked_and_a_line_says_why():
    flags = (
        Flag("layer1", "trace_ratio", 83.0, 20.0, (17,)),
        Flag("layer3", "effective_dimension", 1.2, 2.0, of_reference=True),
    )
    _, ax = plot_cka(result(diagnostics=flagged(*flags)))
    assert texts(ax.get_yticklabels()) == ["layer0", "⚠ layer1", "layer2"]
    assert texts(ax.get_xticklabels()) == ["layer0", "layer1", "layer2", "⚠ layer3"]
    assert len({label.get_color() for label in ax.get_yticklabels()}) == 2
    note = " ".join(ax.texts[-1].get_text().split())
    assert "⚠ effective dimension < 2: layer3 of the reference (1.2)" in note
    assert "⚠ single samples with > 20 times the mean squared distance: layer1 (83 at dataset index 17)" in note
    within = result(3, 3, self_comparison=True, diagnostics=flagged(flags[0]))
    assert texts(plot_cka(within)[1].get_xticklabels()) == ["layer0", "⚠ layer1", "layer2"]
    assert texts(plot_cka(result())[1].texts) == []


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 4), (100, 100), (3, 90)])
@pytest.mark.parametrize("pattern", ["layer{}", LONG])
def test_the_lines_of_flags_are_inside_the_figure_and_under_the_labels(rows, columns, pattern):
    flags = [
        Flag(pattern.format(i), reason, 12.3, 2.0, (17, 1234, 99999), of_reference)
        for reason in ("effective_dimension", "trace_ratio", "leave_one_out", "standard_error")
        for of_reference, count in ((False, rows), (True, columns))
        for i in range(0, count, 30)
    ]
    figure, ax = plot_cka(result(rows, columns, pattern, diagnostics=flagged(*flags)))
    _, width, _ = render(figure).shape
    note = ax.texts[-1].get_window_extent()
    assert note.x0 >= 0
    assert note.y0 >= 0
    assert note.x1 <= width
    assert note.y1 <= ax.xaxis.label.get_window_extent().y0
    extents = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(extents))


def test_ticks_are_thinned_but_not_those_of_flagged_layers():
    assert tick_places(5) == [0, 1, 2, 3, 4]
    assert tick_places(100) == list(range(0, 100, 3))
    places = tick_places(100, {10, 50, 51})
    assert {10, 50, 51} <= set(places)
    assert not {9, 12, 48} & set(places)
    assert tick_places(100, range(100)) == tick_places(100)


@pytest.mark.parametrize(
    ("attributes", "label"),
    [
        ({}, "CKA"),
        ({"kernel": "rbf"}, "CKA (rbf)"),
        ({"kernel": "rbf(0.2)", "unbiased": False}, "CKA (rbf(0.2), biased)"),
    ],
)
def test_the_colour_bar_says_what_it_is(attributes, label):
    assert plot_cka(result(**attributes))[1].child_axes[0].get_ylabel() == label


def history(count=4, layers=3):
    errors = torch.full((layers, layers), 0.02)
    return [
        result(layers, layers, epoch=e, step=10 * e, standard_error=errors, effective_batches=5.0) for e in range(count)
    ]


def test_trend_has_a_line_and_a_band_per_layer():
    results = history()
    _, ax = plot_trend(results)
    assert [line.get_label() for line in ax.get_lines()] == ["layer0", "layer1", "layer2"]
    assert ax.get_lines()[1].get_ydata() == pytest.approx([r.matrix[1, 1].item() for r in results])
    low, high = results[0].confidence_interval(0.95)
    band = ax.collections[2].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (pytest.approx(low[2, 2].item()), pytest.approx(high[2, 2].item()))
    assert texts(ax.get_xticklabels()) == ["0", "1", "2", "3"]
    assert len(plot_trend(history(layers=30))[1].get_lines()) == 8
    assert [line.get_label() for line in plot_trend(results, ["layer2"])[1].get_lines()] == ["layer2"]
    with pytest.raises(ValueError, match=r"no CKA with a layer of the same name for \['conv'\]"):
        plot_trend(results, ["conv"])
    without = [result(3, 3, epoch=e) for e in range(3)]
    assert len(plot_trend(without)[1].get_lines()) == 3


@pytest.mark.parametrize("count", [2, 4, 60])
@pytest.mark.parametrize("layers", [1, 3, 60])
def test_a_drift_figure_has_the_trend_under_the_map(count, layers):
    figure, ax = plot_drift(history(count, layers))
    trend = figure.axes[-1]
    height, width, _ = render(figure).shape
    for axes in (ax, trend):
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label):
            box = label.get_window_extent()
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= width
            assert box.y1 <= height
    assert trend.get_legend().get_window_extent().x1 <= width
    assert trend.get_window_extent().y1 < ax.xaxis.label.get_window_extent().y0
    assert trend.get_xlim() == ax.get_xlim()
    own = Figure().add_subplot()
    assert len(plot_drift(history(count, layers), own)[0].axes) == 1


def test_into_axes_of_the_user():
    figure = Figure()
    ax = figure.add_subplot()
    assert plot_cka(result(), ax) == (figure, ax)
    assert result().plot(ax, cmap="viridis", vmin=-1)[1].get_images()[-1].get_clim() == (-1, 1)


def test_labels_lose_their_common_prefix_and_long_ones_their_middle():
    assert short_labels(["net.block1.conv", "net.block2.conv"]) == (["block1.conv", "block2.conv"], "net")
    assert short_labels(["conv", "convert"]) == (["conv", "convert"], "")
    assert short_labels(["net.a"]) == (["a"], "net")
    # Cut to 32 characters, these would be one.
    blocks = [f"bert.encoder.layer.{i}.attention.output.dense" for i in range(12)] + ["bert.pooler.dense"]
    labels, prefix = short_labels(blocks)
    assert len(set(labels)) == 13
    assert max(map(len, labels)) < max(map(len, blocks)) - len("bert.")
    assert short_labels(["net", "net.a"]) == (["net", "net.a"], "")
    labels, prefix = short_labels([LONG.format(i) for i in range(2)])
    assert prefix == "backbone.encoder.stages"
    assert labels == ["0.blocks.attent…n.out_projection", "1.blocks.attent…n.out_projection"]


def test_a_drift_map_marks_what_is_flagged_at_some_epoch():
    results = history()
    flags = (Flag("layer1", "trace_ratio", 30.0, 20.0, (4,)),)
    results[2] = CKAResult(**(vars(results[2]) | {"diagnostics": Diagnostics(flags=flags)}))
    figure, ax = plot_drift(results)
    assert texts(ax.get_yticklabels()) == ["layer0", "⚠ layer1", "layer2"]
    assert texts(ax.texts) == ["⚠ at 2: see the heatmap"]
    assert texts(plot_drift(history())[1].texts) == []
    height, width, _ = render(figure).shape
    box, title = ax.texts[0].get_window_extent(), ax.title.get_window_extent()
    assert box.x1 <= width
    assert box.y1 <= height
    assert not box.overlaps(title)


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
