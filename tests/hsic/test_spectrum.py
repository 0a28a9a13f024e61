"""The effective dimension against its definition, the mean over 4-tuples of samples; eigenvalues against NumPy's."""

import naive
import numpy as np
import pytest
import torch
from lightning_cka.hsic.spectrum import effective_dimension_numerator, eigenvalue_shares
from lightning_cka.hsic.stack import pack_features


@pytest.mark.parametrize("n", [6, 9])
def test_effective_dimension_matches_naive(n):
    x = torch.randn(n, 4, dtype=torch.float64) * torch.tensor([1, 2, 3, 9.0])
    grams = pack_features([x])
    norms = grams.row_squares.sum(1)
    found = (effective_dimension_numerator(grams.offsets, norms) / norms).item()
    assert found == pytest.approx(naive.effective_dimension(x.numpy()), rel=1e-9)


def test_shares_of_eigenvalues_match_numpy():
    x = torch.randn(2, 10, 4, dtype=torch.float64) * torch.tensor([1, 2, 3, 9.0]) + 5
    shares = eigenvalue_shares(x @ x.mT)
    assert shares.shape == (2, 9)
    for found, features in zip(shares, x.numpy(), strict=True):
        variances = np.linalg.eigvalsh(np.cov(features.T))[::-1]
        assert np.allclose(found[:4], variances / variances.sum())
        assert found[4:].abs().max() < 1e-12


def test_shares_of_layers_without_variance_are_nan():
    x = torch.randn(6, 3)
    shares = eigenvalue_shares(torch.stack([x @ x.T, torch.ones(6, 6), torch.full((6, 6), torch.nan)]))
    assert shares.isnan().all(1).tolist() == [False, True, True]
