"""`functional` against the papers' numbers, the naive reference, and what must always hold."""

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_cka import functional as F
from lightning_cka.hsic import folding, grams, packed, products, stack

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
def test_float32_keeps_its_digits_under_a_large_mean(ratio, unbiased):
    x = torch.randn(64, 512) + ratio * torch.randn(512).sign()
    y = 0.2 * x + torch.randn(64, 512)
    expected = naive.cka(x, y, hsic=HSIC[unbiased][1])
    assert abs(F.cka(x, y, unbiased=unbiased).item() - expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_multiplied_in_float32(dtype):
    x = (torch.randn(32, 300) + 10).to(dtype)
    gram = F.centered_gram(x)
    assert gram.dtype == torch.float32
    assert torch.allclose(gram, F.centered_gram(x.double()).float(), atol=1e-3, rtol=1e-5)


def test_autocast_and_matmul_precision_do_not_apply_and_are_left_alone():
    x = torch.randn(64, 700) + 50
    expected = F.centered_gram(x)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(F.centered_gram(x), expected)
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_features_in_chunks_and_in_any_memory_order():
    x = torch.randn(8, 16, 40, 130, dtype=torch.float64)  # 83,200 features: several chunks
    expected = torch.tensor(naive.fast_gram(x - x.mean(0)))
    assert torch.allclose(F.centered_gram(x), expected, rtol=1e-10, atol=1e-9)
    for other in (x.to(memory_format=torch.channels_last), x.transpose(1, 3), x[:, :, :, ::1]):
        assert torch.allclose(F.centered_gram(other), expected, rtol=1e-10, atol=1e-9)


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
    """One-hot samples: HSIC_1 is exactly zero, and what is left of it is rounding."""
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
    """Neither the Gram matrix nor the product of two HSICs leaves float32's range on the way."""
    x, y = torch.randn(32, 6), torch.randn(32, 8)
    y[:, :6] += x
    for unbiased in (True, False):
        expected = F.cka(x, y, unbiased=unbiased).item()
        assert F.cka(x * scale, y, unbiased=unbiased).item() == pytest.approx(expected, abs=1e-5)
        assert F.cka(x * scale, y * scale, unbiased=unbiased).item() == pytest.approx(expected, abs=1e-5)


def test_a_scale_is_a_power_of_two_and_changes_no_digit():
    x = torch.randn(32, 6)
    gram, scale = grams.full_gram(x * 2.0**-90)
    same, one = grams.full_gram(x)
    assert torch.equal(gram, same)
    assert (scale / one).log2() == -90
    assert grams.full_gram(torch.zeros(5, 2))[1] == 0


def test_reduced_precision_switches_are_left_to_their_parents():
    """After a call, a more general switch still reaches the ones below it."""
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("torch before 2.9 has one switch only")
    torch.backends.cuda.matmul.fp32_precision = "none"
    torch.backends.fp32_precision = "tf32"
    try:
        F.centered_gram(torch.randn(8, 3))
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        torch.backends.fp32_precision = "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        F.centered_gram(torch.randn(8, 3))
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"
        torch.backends.fp32_precision = "none"


def test_independent_wide_features():
    """Positive and negative control: the biased estimate is near 1, the unbiased one near 0."""
    x, y = torch.randn(2, 64, 5000)
    assert F.cka(x, y, unbiased=False) > 0.9
    assert abs(F.cka(x, y)) < 0.1
    assert F.cka(x, x + 0.1 * y) > 0.9


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("n", [9, 4, 12])
def test_packed_grams_hold_everything(unbiased, n):
    x = torch.randn(3, n, 4, dtype=torch.float64)
    full = torch.stack([F.centered_gram(layer) for layer in x])
    held = stack.pack_features(x)
    for other in (held, packed.pack_stack(full), packed.pack_stack(x @ x.mT)):
        scales = held.scales.square()[:, None, None] if other is held else 1.0
        assert torch.allclose(packed.unpack(other) * scales, full, atol=1e-12)
        assert torch.allclose(other.row_squares, folding.unfold(other.halves, n).square().sum(2))
    vectors = products.half_vectors(held, unbiased=unbiased)
    slow = HSIC[unbiased][1]
    scale = n * (n - 3) if unbiased else (n - 1) ** 2
    scale = scale / (held.scales[:, None] * held.scales).square().numpy()
    expected = scale * [[slow(naive.gram(a), naive.gram(b)) for b in x] for a in x]
    found = products.inner_products(vectors, vectors[1:])
    for each, known in zip(found, (expected[:, 1:], np.diag(expected), np.diag(expected)[1:]), strict=True):
        assert np.allclose(each, known, rtol=1e-10)


@pytest.mark.parametrize("factor", [1e-25, 1e-12, 1.0, 1e10, 1e20])
def test_features_that_few_samples_have_need_no_scaling_by_the_user(factor):
    """Their median is 0, and yet float32's range is not left."""
    classes = torch.randint(60, (64,))
    x = torch.nn.functional.one_hot(classes, 60) * torch.rand(64, 1)
    y = x @ torch.randn(60, 60) + torch.randn(64, 60)
    held = stack.pack_features([factor * x, y])
    assert held.row_squares.isfinite().all()
    pairs, a, b = products.hsic_products(held, None, unbiased=True)
    expected = F.cka(x.double(), y.double()).item()
    assert (pairs[0, 1] / (a[0] * b[1]).sqrt()).item() == pytest.approx(expected, abs=1e-6)
    assert F.cka(factor * x, y).item() == pytest.approx(expected, abs=1e-6)


def test_a_softmax_that_is_sure_keeps_its_digits():
    x = torch.randn(64, 100)
    x[torch.arange(64), torch.randint(100, (64,))] += 50
    x, y = x.softmax(1), torch.randn(64, 100)
    assert stack.pack_features([x]).row_squares.isfinite().all()
    assert F.cka(x, y + x).item() == pytest.approx(F.cka(x.double(), (y + x).double()).item(), abs=1e-6)


def test_samples_far_away_at_the_start_of_a_batch_cost_the_others_no_digits():
    x = torch.randn(1000, 30)
    near = x[80:].clone()
    x[:80] += 1000
    distances = packed.squared_distances(stack.pack_features([x]))[0, 80:, 80:]
    scale = stack.pack_features([x]).scales.square()
    expected = torch.cdist(near.double(), near.double()).square()
    error = (distances * scale - expected).abs() / expected.clamp(min=1)
    assert error.median() < 1e-3


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_layer_is_judged_in_its_own_precision(order):
    constant = torch.full((32, 20), 1.0) * (1 + torch.randn(20))
    constant = torch.nextafter(constant, torch.randn(32, 20) * 1e9)
    features = [constant, torch.randn(32, 5, dtype=torch.float64)]
    gram_stack = stack.GramStack(2, 32, dtype=torch.float32, device=torch.device("cpu"), workspace=grams.Workspace())
    for layer in order:
        gram_stack.add(layer, features[layer])
    assert gram_stack.packed().scales[0] == 0


@pytest.mark.parametrize("n", [4, 5, 8])
def test_folding_keeps_each_entry_once(n):
    full = torch.randn(2, n, n)
    full = full + full.mT
    folded = folding.fold(full)
    assert folded.shape == (2, n * -(-n // 2))
    off_diagonal = full - full.diagonal(dim1=1, dim2=2).diag_embed()
    assert torch.equal(folding.unfold(folded, n), off_diagonal)
    rows, columns = torch.tril_indices(n, n, -1)
    entries = off_diagonal[0, rows, columns]
    assert torch.equal(folded[0][folded[0] != 0].sort().values, entries.sort().values)


@pytest.mark.parametrize("group", [1, 2, 100])
def test_a_stack_takes_layers_in_any_order_and_precision(group, monkeypatch):
    monkeypatch.setattr(packed, "_GROUP_ENTRIES_CPU", group * 10**2)
    features = [torch.randn(10, d) for d in (3, 7, 5, 4, 6, 2)]
    expected = [stack.pack_features([each]) for each in features]
    features[3] = features[3].double()
    expected[3] = stack.pack_features([features[3]])
    gram_stack = stack.GramStack(6, 10, dtype=torch.float32, device=torch.device("cpu"), workspace=grams.Workspace())
    for layer in (4, 5, 0, 3, 2):
        gram_stack.add(layer, features[layer])
    gram_stack.set_undefined(1)
    found = gram_stack.packed()
    for layer, alone in enumerate(expected):
        for part, one in zip(found, alone, strict=True):
            assert part.dtype == torch.float64
            if layer == 1:
                assert part[layer].isnan().all()
            else:
                assert torch.allclose(part[layer], one[0].double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.centered_gram(torch.ones(4, 2, dtype=torch.int64)),
            TypeError,
            "floating-point tensor, but have dtype torch.int64",
        ),
        (lambda: F.centered_gram(torch.tensor(1.0)), ValueError, "shape \\(n, ...\\)"),
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
