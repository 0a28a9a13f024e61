"""The folded layout stores each entry once, and its row sums are those of the full matrix."""

import pytest
import torch
from lightning_cka.hsic import folding


def symmetric(n):
    full = torch.randn(2, n, n)
    return full + full.mT


def without_diagonal(full):
    return full - full.diagonal(dim1=1, dim2=2).diag_embed()


@pytest.mark.parametrize("n", [4, 5, 8])
def test_folding_keeps_each_entry_once(n):
    full = symmetric(n)
    folded = folding.fold(full)
    assert folded.shape == (2, n * -(-n // 2))
    off_diagonal = without_diagonal(full)
    assert torch.equal(folding.unfold(folded, n), off_diagonal)
    rows, columns = torch.tril_indices(n, n, -1)
    entries = off_diagonal[0, rows, columns]
    assert torch.equal(folded[0][folded[0] != 0].sort().values, entries.sort().values)


@pytest.mark.parametrize("n", [4, 5, 8])
def test_triangle_indices_select_the_lower_triangle_row_by_row(n):
    full = symmetric(n)
    rows, columns = torch.tril_indices(n, n, -1)
    folded = folding.fold(full)
    assert torch.equal(folded[:, folding.triangle_indices(n)], full[:, rows, columns])
    assert torch.equal(folding.lower_triangles(folded, n), full[:, rows, columns])


def test_large_triangles_are_taken_and_folded_in_parts():
    full = symmetric(301)
    rows, columns = torch.tril_indices(301, 301, -1)
    triangles = folding.lower_triangles(folding.fold(full), 301)
    assert torch.equal(triangles, full[:, rows, columns])
    assert torch.equal(folding.fold_triangles(triangles, 301), folding.fold(full))
    assert torch.equal(folding.fold_triangles(triangles, 301, torch.float64), folding.fold(full).double())


@pytest.mark.parametrize("n", [4, 5, 8])
def test_row_sums_are_those_of_the_full_matrix(n):
    full = without_diagonal(symmetric(n))
    h = folding.half_size(n)
    folded = folding.fold(full).reshape(2, n, h)
    assert torch.allclose(folding.folded_row_sums(folded), full.sum(2), atol=1e-5)
    assert torch.allclose(folding.row_sums(full[:, h:, h:].sum(2), full[:, :, :h]), full.sum(2), atol=1e-5)
