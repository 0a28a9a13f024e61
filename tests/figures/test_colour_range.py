"""Which values have the colours at the ends of the colour map, and what a figure says about it."""

import numpy as np
import pytest
import torch
from figure_contents import all_texts_are_inside, texts
from lightning_cka import CKAResult, plot_cka
from lightning_cka.compare.flags import Flag
from lightning_cka.figures.colour_range import colour_range, narrow_range_note
from lightning_cka.plotting import plot_comparison, plot_drift
from matplotlib import colormaps
from synthetic_results import diagnostics, history, result, trace_flag

NARROW = [np.array([[0.98, 1.0], [np.nan, 0.99]])]


def close_result(**kwargs):
    return CKAResult(torch.linspace(0.98, 1, 9).reshape(3, 3), "abc", "abc", **kwargs)


def test_auto_takes_the_range_of_the_values():
    assert colour_range(NARROW) == (0, 1)
    assert colour_range(NARROW, "auto") == (0.98, 1.0)
    assert colour_range([*NARROW, np.array([0.2])], "auto") == (0.2, 1.0)
    assert colour_range([np.array([0.2, 0.4])], 0, "auto") == (0, 0.4)
    assert colour_range([np.array([0.2, 0.4])], "auto", 1) == (0.2, 1)
    assert colour_range([np.full((2, 2), np.nan)], "auto") == (0, 1)
    low, high = colour_range([np.array([0.5])], "auto")
    assert low < 0.5 < high
    with pytest.raises(ValueError, match="vmin must be a number or \"auto\", but got 'min'"):
        plot_cka(result(), vmin="min")


def test_a_narrow_range_is_told():
    assert narrow_range_note(NARROW, 0, 1) == ['all values lie in 0.980 to 1.000: vmin="auto" shows their differences']
    for values, low in ((NARROW, 0.98), ([np.array([0.2, 0.4])], 0), ([np.ones(3)], 0), ([np.array([np.nan])], 0)):
        assert narrow_range_note(values, low, 1) == []


def test_a_heatmap_of_close_values_says_so_below_and_offers_auto():
    figure, ax = plot_cka(close_result())
    assert ax.get_images()[0].get_clim() == (0, 1)
    (note,) = ax.texts
    assert 'vmin="auto"' in note.get_text()
    assert all_texts_are_inside(figure)
    assert note.get_window_extent().y1 <= ax.xaxis.label.get_window_extent().y0
    _, ax = plot_cka(close_result(), vmin="auto")
    assert ax.get_images()[0].get_clim() == pytest.approx((0.98, 1))
    assert texts(ax.texts) == []


def test_the_line_on_close_values_is_above_those_of_flags():
    flags = diagnostics(trace_flag("b"), Flag("c", "effective_dimension", 1.2, 2.0))
    figure, ax = plot_cka(close_result(diagnostics=flags))
    figure.draw_without_rendering()
    about_range, about_flags = (text.get_window_extent() for text in ax.texts)
    assert about_range.y0 >= about_flags.y1
    assert about_flags.y0 >= 0


def test_panels_share_an_automatic_range():
    results = [close_result(), CKAResult(torch.full((3, 3), 0.5), "abc", "abc")]
    _, grid = plot_comparison(results, vmin="auto", cmap=colormaps["viridis"], colorbar=False)
    assert {ax.get_images()[0].get_clim() for ax in grid} == {(0.5, 1.0)}
    assert {ax.get_images()[0].get_cmap().name for ax in grid} == {"viridis"}
    assert not any(ax.child_axes for ax in grid)
    figure, _ = plot_comparison([close_result()] * 2)
    assert 'vmin="auto"' in texts(figure.texts)[-1]
    assert all_texts_are_inside(figure)


def test_options_of_a_drift_map():
    results = history()
    values = np.array([each.matrix.diagonal().numpy() for each in results])
    _, ax = plot_drift(results, vmin="auto", cmap=colormaps["viridis"], colorbar=False, title="Fine-tuning")
    image = ax.get_images()[0]
    assert image.get_clim() == pytest.approx((values.min(), values.max()))
    assert image.get_cmap().name == "viridis"
    assert (ax.get_title(), ax.child_axes) == ("Fine-tuning", [])
    flagged = [result(3, 3, epoch=epoch, diagnostics=diagnostics(trace_flag())) for epoch in range(2)]
    assert "⚠" in "".join(texts(plot_drift(flagged)[1].get_yticklabels()))
    _, ax = plot_drift(flagged, flags=False)
    assert texts(ax.get_yticklabels()) == ["layer0", "layer1", "layer2"]
    assert texts(ax.texts) == []


def test_flags_colour_bar_and_title_of_a_heatmap_can_be_left_out_or_replaced():
    flagged = result(diagnostics=diagnostics(trace_flag()))
    _, ax = plot_cka(flagged, flags=False, colorbar=False, title="A $5 title", cmap=colormaps["viridis"])
    assert texts(ax.get_yticklabels()) == ["layer0", "layer1", "layer2"]
    assert {label.get_color() for label in ax.get_yticklabels()} == {"black"}
    assert (texts(ax.texts), ax.child_axes, ax.get_title()) == ([], [], r"A \$5 title")
    assert ax.get_images()[0].get_cmap().name == "viridis"
    assert plot_cka(flagged, title="")[1].get_title() == ""
    with pytest.raises(KeyError, match="no such map"):
        plot_drift(history(), cmap="no such map")
