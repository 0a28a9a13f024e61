"""`GramStack`: precision of the packed Gram matrices, in any order of layers."""

import pytest
import torch
from lightning_cka.hsic import functional as F
from lightning_cka.hsic import grams, packed, products, stack


@pytest.mark.parametrize("factor", [1e-25, 1e-12, 1.0, 1e10, 1e20])
def test_sparse_features_stay_in_the_range_of_float32(factor):
    """Each feature is nonzero for few samples, so that its median is 0."""
    classes = torch.randint(60, (64,))
    x = torch.nn.functional.one_hot(classes, 60) * torch.rand(64, 1)
    y = x @ torch.randn(60, 60) + torch.randn(64, 60)
    both = stack.pack_features([factor * x, y])
    assert both.row_squares.isfinite().all()
    pairs, a, b = products.hsic_products(both, None, unbiased=True)
    expected = F.cka(x.double(), y.double()).item()
    assert (pairs[0, 1] / (a[0] * b[1]).sqrt()).item() == pytest.approx(expected, abs=1e-6)
    assert F.cka(factor * x, y).item() == pytest.approx(expected, abs=1e-6)


def test_a_softmax_near_one_hot_stays_precise():
    x = torch.randn(64, 100)
    x[torch.arange(64), torch.randint(100, (64,))] += 50
    x, y = x.softmax(1), torch.randn(64, 100)
    assert stack.pack_features([x]).row_squares.isfinite().all()
    assert F.cka(x, y + x).item() == pytest.approx(F.cka(x.double(), (y + x).double()).item(), abs=1e-6)


def test_outliers_at_the_start_of_a_batch_leave_the_other_distances_precise():
    x = torch.randn(1000, 30)
    near = x[80:].clone()
    x[:80] += 1000
    distances = packed.squared_distances(stack.pack_features([x]))[0, 80:, 80:]
    scale = stack.pack_features([x]).scales.square()
    expected = torch.cdist(near.double(), near.double()).square()
    error = (distances * scale - expected).abs() / expected.clamp(min=1)
    assert error.median() < 1e-3


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_each_layers_own_precision_decides_whether_it_has_variance(order):
    constant = torch.full((32, 20), 1.0) * (1 + torch.randn(20))
    constant = torch.nextafter(constant, torch.randn(32, 20) * 1e9)
    features = [constant, torch.randn(32, 5, dtype=torch.float64)]
    gram_stack = stack.GramStack(2, 32, dtype=torch.float32, device=torch.device("cpu"), workspace=grams.Workspace())
    for layer in order:
        gram_stack.add(layer, features[layer])
    assert gram_stack.packed().scales[0] == 0


@pytest.mark.parametrize("group", [1, 2, 100])
def test_a_stack_accepts_layers_in_any_order_and_precision(group, monkeypatch):
    monkeypatch.setattr(stack, "_GROUP_ENTRIES_CPU", group * 10**2)
    features = [torch.randn(10, d) for d in (3, 7, 5, 4, 6, 2)]
    expected = [stack.pack_features([each]) for each in features]
    features[3] = features[3].double()
    expected[3] = stack.pack_features([features[3]])
    gram_stack = stack.GramStack(6, 10, dtype=torch.float32, device=torch.device("cpu"), workspace=grams.Workspace())
    for layer in (4, 5, 0, 3, 2):
        gram_stack.add(layer, features[layer])
    gram_stack.set_undefined(1)
    found = gram_stack.packed()
    assert found.halves[1].isnan().all()
    assert found.offsets[1].isnan().all()
    assert (packed.row_states(found)[1] == packed.MISSING).all()
    for layer, alone in enumerate(expected):
        for part, one in zip(found, alone, strict=True):
            assert part.dtype == torch.float64
            if layer != 1:
                assert torch.allclose(part[layer], one[0].double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("gram", "message"),
    [
        (torch.ones(5, 4), r"takes \(n, n\) Gram matrices, but got \(5, 4\)"),
        (torch.arange(25.0).reshape(5, 5), "takes symmetric Gram matrices, but got one that is not"),
    ],
)
def test_precomputed_matrices_must_be_square_and_symmetric(gram, message):
    with pytest.raises(ValueError, match=message):
        stack.pack_precomputed([gram])
