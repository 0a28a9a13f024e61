"""Figures of a layer's CKA with itself over epochs."""

import numpy as np
import pytest
from figure_contents import all_texts_are_inside, texts
from lightning_cka.compare.flags import Flag
from lightning_cka.plotting import plot_convergence, plot_trajectories, plot_trajectory
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
    assert texts(last.get_yticklabels()) == ["conv", "⚠ fc"]
    assert first.get_ylabel() == "layer: net.*"
    assert "why it is flagged" in texts(figure.texts)[0]
    assert all_texts_are_inside(figure)
    with pytest.raises(ValueError, match="there is no trajectory to draw"):
        plot_convergence({})
