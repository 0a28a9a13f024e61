"""`functional` against published numbers and the naive reference, and its invariances."""

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_cka import functional as F

HSIC = {True: (F.unbiased_hsic, naive.unbiased_hsic), False: (F.biased_hsic, naive.biased_hsic)}


@pytest.fixture
def demo():
    """The demo of google-research/representation_similarity."""
    state = np.random.RandomState(1337)
    x = state.randn(100, 10)
    y = state.randn(100, 10) + x
    return torch.tensor(x), torch.tensor(y)


@pytest.mark.parametrize(("unbiased", "expected"), [(False, 0.55761), (True, 0.51346)])
def test_published_values(demo, unbiased, expected):
    assert F.cka(*demo, unbiased=unbiased).item() == pytest.approx(expected, abs=5e-6)


def test_exact_values():
    x, y = torch.tensor([0.0, 1, 2, 4], dtype=torch.float64), torch.tensor([0.0, 1, 3, 3], dtype=torch.float64)
    k, ell = F.centered_gram(x), F.centered_gram(y)
    for a, b, expected in ((k, ell, 5), (k, k, 14 / 3), (ell, ell, 6)):
        assert F.unbiased_hsic(a, b).item() == pytest.approx(expected, rel=1e-14)


def test_naive_unbiased_hsic_is_the_u_statistic():
    state = np.random.RandomState(0)
    k, ell = naive.gram(state.randn(7, 3)), naive.gram(state.randn(7, 2) ** 2)
    assert naive.unbiased_hsic(k, ell) == pytest.approx(naive.unbiased_hsic_u_statistic(k, ell), rel=1e-10)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("n", [4, 5, 33])
def test_hsic_matches_naive(n, unbiased):
    x, y = np.random.RandomState(n).randn(2, n, 6)
    fast, slow = HSIC[unbiased]
    expected = slow(naive.gram(x), naive.gram(y))
    for k, ell in (
        (F.centered_gram(torch.tensor(x)), F.centered_gram(torch.tensor(y))),
        (torch.tensor(naive.gram(x)), torch.tensor(naive.gram(y))),
    ):
        assert fast(k, ell).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("ratio", [1, 10, 100, 1000])
@pytest.mark.parametrize("unbiased", [True, False])
def test_float32_stays_precise_under_a_large_mean(ratio, unbiased):
    x = torch.randn(64, 512) + ratio * torch.randn(512).sign()
    y = 0.2 * x + torch.randn(64, 512)
    expected = naive.cka(x, y, hsic=HSIC[unbiased][1])
    assert abs(F.cka(x, y, unbiased=unbiased).item() - expected) < 1e-5


@pytest.mark.parametrize("n", [4, 7, 100, 257])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e8, 3e-9])
def test_constant_features_give_nan_and_not_the_cka_of_rounding_errors(n, value):
    constant = torch.full((n, 50), value)
    other = torch.randn(n, 5)
    for unbiased in (True, False):
        assert F.cka(constant, other, unbiased=unbiased).isnan()
        assert F.cka(constant, constant, unbiased=unbiased).isnan()
    ones = torch.full((n, n), value)
    assert F.cka(ones, other @ other.T, kernel="precomputed").isnan()


def test_equidistant_samples_have_no_unbiased_cka():
    """HSIC_1 of one-hot samples is exactly zero: only rounding errors remain."""
    assert F.cka(torch.eye(100), torch.randn(100, 3)).isnan()
    assert not F.cka(torch.eye(100), torch.randn(100, 3), unbiased=False).isnan()


features = st.integers(0, 2**31).map(
    lambda seed: torch.randn(12, 5, generator=torch.Generator().manual_seed(seed)).double()
)


@settings(max_examples=30, deadline=None)
@given(features, features, st.floats(1e-8, 1e8), st.booleans())
def test_invariances(x, y, scale, unbiased):
    value = F.cka(x, y, unbiased=unbiased).item()
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    assert F.cka(y, x, unbiased=unbiased).item() == pytest.approx(value, abs=1e-12)
    assert F.cka(x @ rotation * scale + scale, y, unbiased=unbiased).item() == pytest.approx(value, abs=1e-7)
    assert F.cka(x, x, unbiased=unbiased).item() == pytest.approx(1, abs=1e-12)
    assert -1 - 1e-12 <= value <= 1 + 1e-12


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-12, 1e-6, 1e6, 1e12, 1e18, 1e30])
def test_scale_does_not_matter_in_float32(scale):
    """Neither the Gram matrix nor the product of two HSICs overflows or underflows float32."""
    x, y = torch.randn(32, 6), torch.randn(32, 8)
    y[:, :6] += x
    for unbiased in (True, False):
        expected = F.cka(x, y, unbiased=unbiased).item()
        assert F.cka(x * scale, y, unbiased=unbiased).item() == pytest.approx(expected, abs=1e-5)
        assert F.cka(x * scale, y * scale, unbiased=unbiased).item() == pytest.approx(expected, abs=1e-5)


def test_independent_wide_features():
    """Positive and negative control: the biased estimate is near 1, the unbiased one near 0."""
    x, y = torch.randn(2, 64, 5000)
    assert F.cka(x, y, unbiased=False) > 0.9
    assert abs(F.cka(x, y)) < 0.1
    assert F.cka(x, x + 0.1 * y) > 0.9


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.centered_gram(torch.ones(4, 2, dtype=torch.int64)),
            TypeError,
            "floating-point tensor, but have dtype torch.int64",
        ),
        (lambda: F.centered_gram(torch.tensor(1.0)), ValueError, "shape \\(n, ...\\), but are a scalar"),
        (lambda: F.cka(torch.ones(3, 2), torch.ones(3, 2)), ValueError, "at least 4 samples are needed, but n = 3"),
        (lambda: F.cka(torch.ones(5, 2), torch.ones(4, 2)), ValueError, "same samples, but have n = 5 and n = 4"),
        (
            lambda: F.cka(torch.ones(5, 2), torch.ones(5, 2), kernel="lineal"),
            ValueError,
            "unknown kernel 'lineal'; expected one of",
        ),
        (
            lambda: F.unbiased_hsic(torch.ones(5, 2), torch.ones(5, 2)),
            ValueError,
            "shape \\(n, n\\), but has \\(5, 2\\)",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
