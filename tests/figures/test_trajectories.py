"""Figures of a layer's CKA with itself over epochs."""

from dataclasses import replace

import numpy as np
import pytest
from figure_contents import all_texts_are_inside, texts
from lightning_cka.compare.flags import Flag
from lightning_cka.plotting import plot_convergence, plot_trajectories, plot_trajectory
from matplotlib.figure import Figure
from synthetic_results import self_result, with_flags

CONV = self_result(3, model_name="net.conv", reference_name="net.conv")
RESULTS = {"net.conv": CONV, "net.fc": with_flags(CONV, Flag("1", "effective_dimension", 1.2, 2.0, ()))}


def test_axes_of_a_trajectory_are_epochs():
    _, ax = plot_trajectory(CONV)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("epoch", "epoch", "net.conv")


def test_trajectories_of_several_layers():
    figure, grid = plot_trajectories(RESULTS)
    assert [ax.get_title() for ax in grid] == ["net.conv", "net.fc"]
    assert all_texts_are_inside(figure)


def test_convergence_shows_the_first_and_the_last_column():
    figure, (first, last) = plot_convergence(RESULTS)
    assert (first.get_title(), last.get_title()) == ("CKA with epoch 0", "CKA with epoch 2")
    assert np.allclose(first.get_images()[0].get_array(), [CONV.matrix[:, 0].numpy()] * 2)
    assert np.allclose(last.get_images()[0].get_array(), [CONV.matrix[:, 2].numpy()] * 2)
    assert first.get_ylabel() == "layer: net.*"
    assert "why it is flagged" in texts(figure.texts)[0]
    assert all_texts_are_inside(figure)
    with pytest.raises(ValueError, match="there is no trajectory to draw"):
        plot_convergence({})


NETWORK = {name: replace(CONV, model_name=name, reference_name="Net") for name in ("net.conv", "net.fc")}


def test_figures_of_trajectories_name_the_network():
    assert plot_trajectory(NETWORK["net.conv"])[1].get_title() == "net.conv of Net"
    _, ax = plot_trajectory(NETWORK["net.conv"], Figure((8, 4)).subplots(1, 8)[0])
    assert "Net" not in ax.get_title()  # There is no room for it.
    assert [ax.get_xlabel() for ax in plot_trajectories(NETWORK)[1]] == ["epoch of Net"] * 2
    assert plot_convergence(NETWORK)[1][0].get_ylabel() == "layer of Net: net.*"


def test_options_of_a_trajectory():
    flagged = RESULTS["net.fc"]
    figure, ax = plot_trajectory(flagged, vmin="auto", title="my title", colorbar=False, flags=False)
    assert (ax.get_title(), texts(ax.texts), ax.child_axes) == ("my title", [], [])
    assert ax.images[0].get_clim() == (0.0, 1.0)
    assert plot_trajectory(CONV, vmin=0.5, vmax=0.75)[1].images[0].get_clim() == (0.5, 0.75)
    assert all_texts_are_inside(figure)


@pytest.mark.parametrize("plot", [plot_trajectories, plot_convergence])
def test_options_of_figures_of_several_layers(plot):
    close = {name: replace(each, matrix=0.98 + 0.02 * each.matrix) for name, each in RESULTS.items()}
    figure, grid = plot(close)
    assert 'vmin="auto"' in " ".join(texts(figure.texts))
    assert grid[-1].child_axes
    figure, grid = plot(close, vmin="auto", titles=["a", "b"], colorbar=False, flags=False)
    assert texts(figure.texts) == []
    assert [ax.get_title() for ax in grid] == ["a", "b"]
    assert not any(ax.child_axes for ax in grid)
    assert grid[0].images[0].get_clim() == grid[1].images[0].get_clim() == pytest.approx((0.98, 1.0))
    with pytest.raises(ValueError, match="titles"):
        plot(close, titles=["a"])


def test_convergence_labels_its_layers_once():
    figure, (first, last) = plot_convergence(RESULTS)
    figure.draw_without_rendering()
    assert texts(first.get_yticklabels()) == ["conv", "⚠ fc"]
    assert not any(tick.label1.get_visible() for tick in last.yaxis.get_major_ticks())
    assert last.get_ylabel() == ""
    assert last.get_position().x0 - first.get_position().x1 < 0.1
