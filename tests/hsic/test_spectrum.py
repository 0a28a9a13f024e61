"""The effective dimension against its definition, the mean over 4-tuples of samples; eigenvalues against NumPy's."""

import naive
import numpy as np
import pytest
import torch
from lightning_cka.hsic.spectrum import effective_dimension_numerator, effective_rank, eigenvalue_shares
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


def test_effective_rank_matches_numpy():
    x = torch.randn(3, 10, 4, dtype=torch.float64) * torch.tensor([1, 2, 3, 9.0]) + 5
    found = effective_rank(torch.stack([each @ each.T for each in x]))
    assert found.tolist() == pytest.approx([naive.effective_rank(each.numpy()) for each in x], rel=1e-9)
    assert (found > 1).all()
    assert (found < 4).all()


def test_effective_rank_counts_equal_directions_and_is_at_most_the_number_of_samples_minus_one():
    contrasts = torch.linalg.qr(torch.cat([torch.ones(8, 1), torch.randn(8, 7)], 1).double())[0][:, 1:]
    for count in (1, 3, 7):
        x = 100 * contrasts[:, :count] + 7
        assert effective_rank(x @ x.T).item() == pytest.approx(count, rel=1e-9)
    assert effective_rank(torch.eye(8)).item() == pytest.approx(7)


@pytest.mark.parametrize("rank", [1, 3, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rounding_errors_of_gram_matrices_do_not_count(rank, dtype):
    """As in a bank, entries are off by rounding errors, whose square roots would add up to a direction or more."""
    x = torch.randn(128, rank, dtype=torch.float64) @ torch.randn(rank, 64, dtype=torch.float64)
    exact = naive.effective_rank(x.numpy())
    x = x - x.mean(0)
    gram = (x @ x.T).to(dtype).double()
    assert effective_rank(gram).item() == pytest.approx(exact, rel=1e-5 if dtype is torch.float32 else 5e-3)
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    naive_rank = torch.special.entr(values / values.sum()).sum().exp().item()
    assert naive_rank > exact + 0.02  # Positive control.


def test_effective_rank_of_features_that_do_not_vary_is_zero_and_of_nan_is_nan():
    x = torch.randn(6, 3)
    found = effective_rank(torch.stack([x @ x.T, torch.ones(6, 6), torch.full((6, 6), torch.nan)]))
    assert found[0] > 1
    assert found[1] == 0
    assert found[2].isnan()
