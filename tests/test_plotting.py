"""Figures: which axis is which, ranges, ticks, and what cannot be drawn."""

import itertools

import numpy as np
import pytest
import torch
from lightning_cka import CKAResult, plot_cka
from lightning_cka.canvas import MAX_TICKS, render, short_labels
from lightning_cka.plotting import plot_drift
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


def test_into_axes_of_the_user():
    figure = Figure()
    ax = figure.add_subplot()
    assert plot_cka(result(), ax) == (figure, ax)
    assert result().plot(ax, cmap="viridis", vmin=-1)[1].get_images()[-1].get_clim() == (-1, 1)


def test_labels_lose_their_common_prefix_and_long_ones_their_middle():
    assert short_labels(["net.block1.conv", "net.block2.conv"]) == (["block1.conv", "block2.conv"], "net")
    assert short_labels(["conv", "convert"]) == (["conv", "convert"], "")
    assert short_labels(["net.a"]) == (["a"], "net")
    assert short_labels(["net", "net.a"]) == (["net", "net.a"], "")
    labels, prefix = short_labels([LONG.format(i) for i in range(2)])
    assert prefix == "backbone.encoder.stages"
    assert labels == ["0.blocks.attent…n.out_projection", "1.blocks.attent…n.out_projection"]


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
