"""The effective dimension against its definition, the mean over 4-tuples of distinct samples."""

import naive
import pytest
import torch
from lightning_cka.hsic.spectrum import effective_dimension_numerator
from lightning_cka.hsic.stack import pack_features


@pytest.mark.parametrize("n", [6, 9])
def test_effective_dimension_matches_naive(n):
    x = torch.randn(n, 4, dtype=torch.float64) * torch.tensor([1, 2, 3, 9.0])
    grams = pack_features([x])
    norms = grams.row_squares.sum(1)
    found = (effective_dimension_numerator(grams.offsets, norms) / norms).item()
    assert found == pytest.approx(naive.effective_dimension(x.numpy()), rel=1e-9)
