"""Cells and their colour bar."""

import torch
from figure_contents import texts
from lightning_cka import CKAResult, plot_cka
from synthetic_results import result


def test_nan_cells_are_grey_and_explained():
    matrix = torch.eye(3)
    matrix[1] = torch.nan
    _, ax = plot_cka(CKAResult(matrix, "abc", "abc"))
    assert ax.get_images()[0].get_array().mask[1].all()
    bar = ax.child_axes[0]
    assert texts(bar.texts) == ["grey: nan"]
    assert texts(plot_cka(result())[1].child_axes[0].texts) == []
