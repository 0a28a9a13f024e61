"""Cells and their colour bar."""

import torch
from figure_contents import texts
from lightning_cka import CKAResult, plot_cka
from synthetic_results import result


def test_nan_cells_are_grey_and_hatched_and_explained():
    matrix = torch.eye(3)
    matrix[1] = torch.nan
    _, ax = plot_cka(CKAResult(matrix, "abc", "abc"))
    assert ax.get_images()[0].get_array().mask[1].all()
    (hatched,) = ax.patches
    assert hatched.get_hatch()
    assert [hatched.get_path().contains_point((1, row)) for row in range(3)] == [False, True, False]
    bar = ax.child_axes[0]
    assert texts(bar.texts) == ["hatched: nan"]
    _, ax = plot_cka(result())
    assert texts(ax.child_axes[0].texts) == list(ax.patches) == []
