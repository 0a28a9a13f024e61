"""Figures have room for their labels."""

import pytest
from figure_contents import all_texts_are_inside, lay_out
from lightning_cka.figures.layout import (
    axes_below,
    figure_of,
    figure_width,
    labels_overlap,
    new_axes,
)
from lightning_cka.figures.panel_grid import grid_width, new_grid
from matplotlib.figure import Figure


def test_axes_below_leave_the_axes_above_where_they_are():
    ax = new_axes("abc", "ab")
    figure = figure_of(ax)
    assert figure.get_figwidth() == figure_width("abc", "ab")
    before = ax.get_window_extent()
    lower = axes_below(ax, height=1.0, gap=0.5)
    assert figure.get_figheight() * figure.dpi == pytest.approx(lay_out(figure)[1], abs=1)
    above, below = ax.get_window_extent(), lower.get_window_extent()
    assert (above.width, above.height) == pytest.approx((before.width, before.height))
    assert (below.x0, below.width) == pytest.approx((above.x0, above.width))
    assert (below.height, above.y0 - below.y1) == pytest.approx((figure.dpi, 0.5 * figure.dpi))


def test_panels_go_from_left_to_right_and_then_down():
    grid = new_grid("abc", "abc", 3, 2, 0.2)
    assert figure_of(grid[0]).get_figwidth() == grid_width("abc", "abc", 2)
    boxes = [ax.get_position() for ax in grid]
    assert boxes[0].y0 == boxes[1].y0 > boxes[2].y1
    assert boxes[0].x0 == boxes[2].x0 < boxes[1].x0


def test_the_figure_of_axes_in_a_subfigure():
    figure = Figure()
    assert figure_of(figure.subfigures(1, 2)[1].subplots()) is figure


def test_many_or_long_labels_overlap():
    assert not labels_overlap(["a"] * 4)
    assert labels_overlap(["a" * 20] * 4)


def test_text_outside_a_figure_is_found():
    """A positive control for the other tests."""
    figure = Figure()
    assert all_texts_are_inside(figure)
    figure.text(0.99, 0.5, "beyond the edge")
    assert not all_texts_are_inside(figure)
