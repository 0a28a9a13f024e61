"""Kernel Gram matrices, computed from packed linear ones."""

import naive
import numpy as np
import pytest
import torch
from lightning_cka.hsic import kernel_grams
from lightning_cka.hsic.kernel_grams import apply_kernel, median_squared_distances
from lightning_cka.hsic.kernels import RBF
from lightning_cka.hsic.packed import unpack
from lightning_cka.hsic.stack import pack_features


@pytest.mark.parametrize("kernel", ["rbf", "distance", RBF(0.2), lambda squared: -squared])
def test_chunks_of_layers_give_the_same_as_all_layers_at_once(kernel, monkeypatch):
    grams = pack_features([torch.randn(12, 5) for _ in range(5)])
    medians = median_squared_distances(grams)
    whole = apply_kernel(kernel, grams, medians)
    monkeypatch.setattr(kernel_grams, "_CHUNK_ENTRIES", 300)
    for one, other in zip(whole, apply_kernel(kernel, grams, medians), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(medians, median_squared_distances(grams))


def test_gram_matrices_do_not_depend_on_the_internal_scale():
    x = torch.randn(12, 5, dtype=torch.float64)
    for scale in (1e-20, 1.0, 1e20):
        packed = pack_features([scale * x])
        assert median_squared_distances(packed).item() == pytest.approx(
            scale**2 * np.median(naive.squared_distances(x)), rel=1e-10
        )
        h = np.eye(12) - 1 / 12
        expected = h @ naive.rbf_gram(x) @ h
        assert np.allclose(unpack(apply_kernel("rbf", packed))[0], expected, atol=1e-12)


def test_the_linear_kernel_returns_the_same_matrices():
    grams = pack_features([torch.randn(12, 5)])
    assert apply_kernel("linear", grams) is grams
