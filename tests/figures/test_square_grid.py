"""Square axes fill a figure whose size the user chose."""

import pytest
from lightning_cka.figures.layout import figure_of
from lightning_cka.figures.square_grid import side_by_side, square_grid
from matplotlib import rc_context


def test_panels_are_square_and_in_order():
    grid = square_grid(5, 3, side=2.0, above=0.2, below=0.1, right=0.5)
    boxes = [ax.get_window_extent() for ax in grid]
    assert all(box.width == pytest.approx(box.height) for box in boxes)
    assert boxes[0].y0 == boxes[2].y0 > boxes[3].y1
    assert boxes[0].x0 == boxes[3].x0 < boxes[1].x0


def test_panels_side_by_side_fit_into_the_width_of_the_user():
    with rc_context({"figure.figsize": (3.3, 2.8), "font.size": 7.0}):
        grid = square_grid(4, 4, side=2.0, above=0.2, below=0.1, right=0.5)
    assert side_by_side(grid) == 2
    assert figure_of(grid[0]).get_figwidth() == 3.3
    assert grid[0].bbox.width >= 0.79 * figure_of(grid[0]).dpi
    assert side_by_side(square_grid(5, 4, side=2.0, above=0.2, below=0.1, right=0.5)) == 4


def test_the_figure_has_the_size_of_the_user():
    with rc_context({"figure.figsize": (6.9, 5.0), "font.size": 7.0}):
        grid = square_grid(4, 4, side=2.0, above=0.2, below=0.1, right=0.5)
    assert tuple(figure_of(grid[0]).get_size_inches()) == (6.9, 5.0)
    assert grid[-1].get_position().x1 < 1
    assert grid[0].get_position().y0 > 0
