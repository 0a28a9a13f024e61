"""Cells, their colour bar and the values in them."""

import numpy as np
import torch
from figure_contents import texts
from lightning_cka import CKAResult, plot_cka
from lightning_cka.figures.cells import draw_cells, write_values
from matplotlib.figure import Figure
from synthetic_results import result


def test_nan_cells_are_grey_and_explained():
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


def test_values_in_cells_have_their_standard_errors():
    errors = torch.tensor([[0.01, 0.02], [0.03, 0.04]])
    _, ax = plot_cka(result(2, 2, standard_error=errors), add_text=True)
    assert texts(ax.texts) == ["-0.100\n±0.010", "0.267\n±0.020", "0.633\n±0.030", "1.000\n±0.040"]
    _, ax = plot_cka(result(2, 2, standard_error=torch.full((2, 2), torch.nan)), add_text=True)
    assert texts(ax.texts)[0] == "-0.10"  # The error of a single batch is not known.


def test_hidden_cells_are_covered_and_empty():
    ax = Figure().add_subplot()
    hidden = np.array([[False, True], [False, False]])
    image = draw_cells(ax, np.eye(2), "viridis", 0.0, 1.0, hidden)
    write_values(ax, image, np.eye(2), None, hidden)
    assert (~ax.get_images()[1].get_array().mask == hidden).all()
    assert [t.get_position() for t in ax.texts] == [(0, 0), (0, 1), (1, 1)]
