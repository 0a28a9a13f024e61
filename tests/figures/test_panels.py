"""Several heatmaps in one figure, trends by depth, animations and tables."""

import csv

import numpy as np
import pytest
import torch
from lightning_cka import CKAResult, plot_cka
from lightning_cka.compare.diagnostics import Diagnostics
from lightning_cka.compare.flags import Flag
from lightning_cka.compare.tables import table, write_csv
from lightning_cka.figures.animation import write_animation
from lightning_cka.figures.canvas import render
from lightning_cka.plotting import (
    plot_comparison,
    plot_convergence,
    plot_drift,
    plot_layer_trend,
    plot_trajectories,
    plot_trajectory,
    plot_trend,
)
from PIL import Image
from test_plotting import LONG, result, texts


def within(size=3, pattern="{}", **kwargs):
    names = tuple(pattern.format(i) for i in range(size))
    matrix = torch.linspace(0, 1, size * size, dtype=torch.float64).reshape(size, size)
    return CKAResult((matrix + matrix.T) / 2, names, names, self_comparison=True, **kwargs)


def flagged(one, *flags):
    return CKAResult(**(vars(one) | {"diagnostics": Diagnostics({}, {}, {}, flags)}))


def inside(figure):
    """All texts of a figure's axes and of itself are in it."""
    height, width, _ = render(figure).shape
    labels = list(figure.texts)
    for ax in figure.axes:
        labels += [ax.title, ax.xaxis.label, ax.yaxis.label, *(ax.get_legend().get_texts() if ax.get_legend() else ())]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = axis.get_view_interval()
            labels += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    return all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= width and b.y1 <= height for b in boxes)


def test_one_triangle_of_a_symmetric_matrix():
    _, ax = plot_cka(within(), add_text=True, triangle=True)
    cells, cover = ax.get_images()
    assert not cells.get_array().mask.any()
    assert (~cover.get_array().mask).tolist() == [[False, True, True], [False, False, True], [False, False, False]]
    assert cover.get_cmap().colors == ["white"]
    assert [t.get_position() for t in ax.texts] == [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)]
    with pytest.raises(ValueError, match="half of a symmetric matrix, but this one compares two models"):
        plot_cka(result(), triangle=True)


def test_ticks_colours_and_range_are_the_users():
    _, ax = plot_cka(result(30, 30, LONG), max_ticks=10, max_label=12, cmap="viridis", vmin=-1, vmax=0.5)
    assert len(ax.get_xticklabels()) == 10
    assert max(map(len, texts(ax.get_yticklabels()))) <= 12
    image = ax.get_images()[0]
    assert (image.get_cmap().name, image.get_clim()) == ("viridis", (-1, 0.5))


@pytest.mark.parametrize(("count", "across"), [(1, 4), (2, 4), (5, 2)])
@pytest.mark.parametrize(("rows", "columns", "pattern"), [(3, 4, "layer{}"), (60, 30, LONG)])
def test_several_heatmaps_share_a_range_and_fit(count, across, rows, columns, pattern):
    results = [result(rows, columns, pattern, epoch=epoch) for epoch in range(count)]
    results[-1] = flagged(results[-1], Flag(results[-1].layers[1], "effective_dimension", 1.5, 2.0, ()))
    figure, grid = plot_comparison(results, across=across)
    assert [ax.get_title() for ax in grid] == [f"Live and initial, epoch {epoch}" for epoch in range(count)]
    assert {ax.get_images()[0].get_clim() for ax in grid} == {(0, 1)}
    assert inside(figure)
    boxes = [ax.get_tightbbox() for ax in grid]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert texts(figure.texts)[0].startswith(f"Live and initial, epoch {count - 1}: ⚠ effective dimension < 2")
    # One bar for each line of panels.
    assert sum(len(ax.child_axes) for ax in grid) == -(-count // across)


def test_what_cannot_be_put_side_by_side():
    with pytest.raises(ValueError, match="there is no result to draw"):
        plot_comparison([])
    with pytest.raises(ValueError, match="there are 2 results, but 1 titles"):
        plot_comparison([result(), result()], ["a"])
    assert [ax.get_title() for ax in plot_comparison([result(), result()], ["a", "b"])[1]] == ["a", "b"]


def test_the_diagonal_by_depth():
    errors = torch.full((3, 4), 0.02)
    results = [result(epoch=epoch, standard_error=errors, effective_batches=8.0) for epoch in range(2)]
    _, ax = plot_layer_trend(results)
    assert [line.get_label() for line in ax.lines] == ["initial, epoch 0", "initial, epoch 1"]
    assert np.allclose(ax.lines[0].get_ydata(), results[0].matrix.diagonal())
    assert texts(ax.get_xticklabels()) == ["layer0", "layer1", "layer2"]
    low, high = results[0].confidence_interval(0.95)
    edges = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == pytest.approx((float(low[0, 0]), float(high[2, 2])))
    assert [line.get_label() for line in plot_layer_trend(results, ["a", "b"])[1].lines] == ["a", "b"]
    assert inside(ax.figure)
    assert inside(plot_layer_trend(results, ["a name that is rather long", "b"])[0])
    deep = [result(9, 9, LONG, epoch=epoch) for epoch in range(3)]
    assert all(inside(plot(deep)[0]) for plot in (plot_layer_trend, plot_trend, plot_drift))
    with pytest.raises(ValueError, match="there are 2 results, but 1 labels"):
        plot_layer_trend(results, ["a"])
    with pytest.raises(ValueError, match="must have the same layers, but one has"):
        plot_layer_trend([result(), result(2, 2)])
    with pytest.raises(ValueError, match="at least one result with layers of the same name"):
        plot_layer_trend([])


def test_trajectories():
    one = within(3, model_name="net.conv", reference_name="net.conv")
    found = {"net.conv": one, "net.fc": flagged(one, Flag("1", "effective_dimension", 1.2, 2.0, ()))}
    _, ax = plot_trajectory(one)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("epoch", "epoch", "net.conv")
    figure, grid = plot_trajectories(found)
    assert [ax.get_title() for ax in grid] == ["net.conv", "net.fc"]
    assert inside(figure)
    figure, (first, last) = plot_convergence(found)
    assert (first.get_title(), last.get_title()) == ("CKA with epoch 0", "CKA with epoch 2")
    assert np.allclose(first.get_images()[0].get_array(), [one.matrix[:, 0].numpy()] * 2)
    assert np.allclose(last.get_images()[0].get_array(), [one.matrix[:, 2].numpy()] * 2)
    assert texts(last.get_yticklabels()) == ["conv", "⚠ fc"]
    assert first.get_ylabel() == "layer: net.*"
    assert "why it is flagged" in texts(figure.texts)[0]
    assert inside(figure)
    with pytest.raises(ValueError, match="there is no trajectory to draw"):
        plot_convergence({})


def frames(path):
    with Image.open(path) as image:
        for place in range(image.n_frames):
            image.seek(place)
            yield image.convert("RGB"), image.info["duration"]


def test_an_animation_has_a_frame_for_each_result(tmp_path):
    results = [result(3, 3, epoch=epoch, step=10 * epoch) for epoch in range(4)]
    note = Flag("layer1", "standard_error", 0.2, 0.05, ())
    results[2] = flagged(results[2], note)
    write_animation(results, tmp_path / "new" / "a.gif", seconds=0.2)
    found = list(frames(tmp_path / "new" / "a.gif"))
    assert [duration for _, duration in found] == [200, 200, 200, 800]
    assert len({image.size for image, _ in found}) == 1
    expected = render(plot_cka(results[2])[0])
    assert found[2][0].size == expected.shape[1::-1]
    # A GIF has 256 colours.
    assert np.abs(np.asarray(found[2][0]).astype(int) - expected).mean() < 3
    # Titles differ, and nothing is left of the notes on flags of the frame before.
    assert np.abs(np.asarray(found[0][0]).astype(int) - np.asarray(found[1][0])).max() > 100
    assert (np.asarray(found[3][0])[-20:] == 255).all()


def test_long_runs_are_thinned(tmp_path):
    write_animation([result(2, 2, epoch=epoch) for epoch in range(9)], tmp_path / "a.gif", max_frames=4)
    assert len(list(frames(tmp_path / "a.gif"))) == 4
    write_animation([result(2, 2)], tmp_path / "a.gif")
    assert len(list(frames(tmp_path / "a.gif"))) == 1
    with pytest.raises(ValueError, match="there is no result to animate"):
        write_animation([], tmp_path / "a.gif")


def test_tables(tmp_path):
    results = [result(2, 1, epoch=epoch, standard_error=torch.tensor([[0.1], [torch.nan]])) for epoch in range(2)]
    write_csv(results, tmp_path / "a.csv")
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert len(rows) == 4
    assert rows[2] == {
        "epoch": "1",
        "step": "30",
        "layer": "layer0",
        "reference_layer": "layer0",
        "cka": repr(float(results[1].matrix[0, 0])),
        "standard_error": repr(float(results[1].standard_error[0, 0])),
    }
    assert rows[3]["standard_error"] == "nan"
    assert results[0].to_rows()[1]["layer"] == "layer1"
    assert table(["name", "x"], [["a", "1.5"], ["long name", "10"]]) == "name         x\na          1.5\nlong name   10"
