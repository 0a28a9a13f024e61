"""The maps of convergence: what they show, where the marks are, and that all texts fit."""

import numpy as np
import pytest
import torch
from figure_contents import all_texts_are_inside, texts
from lightning_cka import convergence
from lightning_cka.decisions.last_state import SimilarityToLast
from lightning_cka.decisions.layer_convergence import LAST_STATE, Convergence, LayerConvergence
from lightning_cka.plotting import plot_convergence
from synthetic_results import settling_history, trace_flag, with_flags


def found(layers=3, moments=6, pattern="net.{}", history=None):
    """Layer i converges at moment i + 1 by its last state; the last layer does not."""
    history = settling_history(moments, layers, pattern=pattern) if history is None else history
    names = history[-1].layers
    values = torch.rand(layers, moments + 1, dtype=torch.float64)
    when = ((None, 0), *((each.epoch, each.step) for each in history))
    last = SimilarityToLast(names, ("init", *(str(each.epoch) for each in history)), when, values, values, 8.0, "Live")
    by_reference = convergence({"initial": history})
    places = [*(min(place, moments - 1) for place in range(1, layers)), None]
    by_last = [
        LayerConvergence(name, LAST_STATE, place is not None, place, None, None, 0.99, 0.985, 1.0)
        for name, place in zip(names, places, strict=True)
    ]
    return Convergence(names, 0.02, 0.95, {"initial": history}, last, (*by_reference.found, *by_last), ())


def marks(ax):
    points = [line.get_xydata() for line in ax.lines if line.get_label() == "_settled"]
    return [tuple(point) for each in points for point in each.tolist()]


def test_each_map_has_its_values_and_marks():
    shown = found()
    figure, (initial, last) = plot_convergence(shown)
    assert [ax.get_title() for ax in (initial, last)] == ["CKA with initial", "CKA with the last state"]
    history = shown.results["initial"]
    expected = np.array([[float(each.matrix[row, row]) for each in history] for row in range(3)])
    assert np.allclose(initial.get_images()[0].get_array(), expected)
    assert np.allclose(last.get_images()[0].get_array(), shown.last.values)
    places = [shown.of(name, "initial").place for name in shown.layers]
    assert marks(initial) == [(place, row) for row, place in enumerate(places) if place is not None]
    assert marks(last) == [(1, 0), (2, 1)]
    assert len(marks(initial)) > 1
    assert [ax.get_xlabel() for ax in (initial, last)] == ["epoch", "epoch"]
    assert initial.get_ylabel() == "layer of Live: net.*"
    (note,) = texts(figure.texts)
    assert "the change to the last value is within ±0.02 (95 %)" in note
    assert "CKA is above 0.98 (95 %)" in note
    assert all_texts_are_inside(figure)


@pytest.mark.parametrize("layers", [1, 4, 12, 40, 100])
def test_texts_fit_at_all_depths_and_marks_do_not_cover_each_other(layers):
    figure, grid = plot_convergence(found(layers, pattern="encoder.layers.{}.attention"))
    assert all_texts_are_inside(figure)
    for ax in grid:
        height = ax.get_window_extent().height * 72 / figure.dpi / layers
        sizes = [line.get_markersize() for line in ax.lines if line.get_label() == "_settled"]
        assert all(size <= max(height, 2.0) for size in sizes)


def test_the_same_epochs_are_at_the_same_place_in_all_maps():
    """CKA with the last state begins before training, that with the reference after the first epoch."""
    figure, (initial, last) = plot_convergence(found(moments=6))
    figure.draw_without_rendering()
    width = initial.get_window_extent().width
    for ax, place in ((initial, 0), (last, 1)):  # Epoch 0.
        assert ax.get_xticklabels()[place].get_text() == "0"
        assert ax.transData.transform((place, 0))[0] - ax.get_window_extent().x0 == pytest.approx(1.5 * width / 7)
    assert initial.get_images()[0].get_array().shape == (3, 6)


def test_without_banks_or_without_results_there_is_one_map():
    shown = found()
    _, (ax,) = plot_convergence(convergence(shown.results))
    assert ax.get_title() == "CKA with initial"
    alone = Convergence(shown.layers, 0.02, 0.95, {}, shown.last, shown.found[3:], ())
    figure, (ax,) = plot_convergence(alone)
    assert (ax.get_title(), ax.get_ylabel()) == ("CKA with the last state", "layer of Live: net.*")
    assert "the change to the last value" not in texts(figure.texts)[0]
    assert alone.plot()[1][0].get_title() == ax.get_title()


def test_options_and_flags():
    history = settling_history(6, 3, pattern="net.{}")
    history[2] = with_flags(history[2], trace_flag("net.1"))
    shown = found(history=history)
    figure, (first, last) = plot_convergence(shown)
    figure.draw_without_rendering()
    assert texts(first.get_yticklabels()) == ["0", "⚠ 1", "2"]
    assert any("see the layer's heatmaps for its flags" in text for text in texts(figure.texts))
    figure, grid = plot_convergence(shown, vmin="auto", titles=["a", "b"], colorbar=False, flags=False)
    assert [ax.get_title() for ax in grid] == ["a", "b"]
    assert not any(ax.child_axes for ax in grid)
    assert not any("see the layer" in text for text in texts(figure.texts))
    assert last.get_ylabel() == ""
    with pytest.raises(ValueError, match="titles of both maps, but got 1"):
        plot_convergence(shown, titles=["a"])


def test_four_maps_are_in_two_lines_with_one_colour_bar():
    shown = found()
    several = dict.fromkeys(("initial", "pretrained", "x" * 60), shown.results["initial"])
    each = convergence(several)
    both = Convergence(each.layers, 0.02, 0.95, each.results, shown.last, (*each.found, *shown.found[3:]), ())
    figure, grid = plot_convergence(both)
    assert len({round(ax.get_position().y0, 3) for ax in grid}) == 2
    assert sum(bool(ax.child_axes) for ax in grid) == 1
    assert all_texts_are_inside(figure)
