"""Inner products of packed Gram matrices against the naive HSIC."""

import naive
import numpy as np
import pytest
import torch
from lightning_cka.hsic import products, stack

HSIC = {True: naive.unbiased_hsic, False: naive.biased_hsic}


def naive_products(x, unbiased):
    """<K, L> of all pairs of layers."""
    n = x.shape[1]
    scale = n * (n - 3) if unbiased else (n - 1) ** 2
    return scale * np.array([[HSIC[unbiased](naive.gram(a), naive.gram(b)) for b in x] for a in x])


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("n", [9, 4, 12])
def test_inner_products_of_half_vectors_are_hsic(unbiased, n):
    x = torch.randn(3, n, 4, dtype=torch.float64)
    grams = stack.pack_features(x)
    vectors = products.half_vectors(grams, unbiased=unbiased)
    expected = naive_products(x, unbiased) / (grams.scales[:, None] * grams.scales).square().numpy()
    found = products.inner_products(vectors, vectors[1:])
    for each, known in zip(found, (expected[:, 1:], np.diag(expected), np.diag(expected)[1:]), strict=True):
        assert np.allclose(each, known, rtol=1e-10)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("n", [9, 12])
def test_scales_are_applied_and_rows_sum_to_the_products(unbiased, n):
    x = 1e3 * torch.randn(3, n, 4, dtype=torch.float64)
    grams = stack.pack_features(x)
    expected = naive_products(x, unbiased)
    pairs, norms, same = products.hsic_products(grams, None, unbiased=unbiased)
    assert np.allclose(pairs, expected, rtol=1e-10)
    assert torch.equal(norms, pairs.diagonal())  # Exactly: CKA of a layer with itself must be 1.
    assert torch.equal(norms, same)
    other = stack.pack_features(x.flip(0))
    rows = products.row_products(grams, other, unbiased=unbiased)
    assert rows.shape == (3, n)
    assert np.allclose(rows.sum(1), np.diag(expected[:, ::-1]), rtol=1e-10)


def test_vectors_longer_than_a_block():
    x, y = torch.randn(2, 5000), torch.randn(3, 5000)
    pairs, x_norms, y_norms = products.inner_products(x, y)
    assert torch.allclose(pairs, 2 * x.double() @ y.double().T)
    assert torch.allclose(x_norms, 2 * x.double().square().sum(1))
    assert torch.allclose(y_norms, 2 * y.double().square().sum(1))
