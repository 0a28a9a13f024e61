"""HSIC without directions and within groups, against the matrices themselves and against features."""

import naive
import numpy as np
import pytest
import torch
from centered_features import centered, gram
from lightning_cka.hsic.centered_grams import CenteredGrams, u_products
from lightning_cka.hsic.removed import Removed, between_groups, direction, products_without


def features(count, seed, n=20):
    made = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3 + layer, generator=made, dtype=torch.float64) for layer in range(count)]


def naive_products(k, ell, unbiased):
    n = len(k)
    hsic, weight = (naive.unbiased_hsic, n * (n - 3)) if unbiased else (naive.biased_hsic, (n - 1) ** 2)
    return [weight * hsic(*each) for each in ((k, ell), (k, k), (ell, ell))]


def whole_products(x, y):
    return torch.stack([u_products(*pair) for pair in ((x, y), (x, x), (y, y))])


def scaled(found, s, t):
    """The products of features from those of features / scale, ``(L, 3)``."""
    return (found * torch.stack([s * t, s.square(), t.square()]).square()).T.numpy()


@pytest.mark.parametrize("unbiased", [True, False])
def test_products_equal_those_of_the_differences(unbiased):
    xs, ys = features(3, 0), features(3, 1)
    (x, s), (y, t) = centered(xs), centered(ys)
    vectors = torch.randn(4, 3, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    vectors -= vectors.mean(2, keepdim=True)
    from_x, from_y = Removed(*vectors[:2]), Removed(*vectors[2:])
    found = scaled(products_without(x, y, from_x, from_y, whole_products(x, y), unbiased=unbiased), s, t)
    for row in range(3):
        rests = []
        for z, scale, (a, b) in ((xs[row], s[row], from_x), (ys[row], t[row], from_y)):
            outer = np.outer(a[row], b[row]) * float(scale) ** 2
            rests.append(gram(z) - outer - outer.T)
        assert found[row] == pytest.approx(naive_products(*rests, unbiased), rel=1e-9)


@pytest.mark.parametrize("unbiased", [True, False])
def test_without_the_groups_features_are_centered_in_each_group(unbiased):
    xs, ys = features(2, 0), features(2, 1)
    (x, s), (y, t) = centered(xs), centered(ys)
    is_first = torch.arange(20) < 7
    groups = torch.where(is_first, -1 / 7, 1 / 13).double().expand(2, -1)
    groups = groups / groups.norm(dim=1, keepdim=True)
    removed = [between_groups(each, groups) for each in (x, y)]
    found = scaled(products_without(x, y, *removed, whole_products(x, y), unbiased=unbiased), s, t)
    for row in range(2):
        for z in (xs[row], ys[row]):
            for part in (is_first, ~is_first):
                z[part] -= z[part].mean(0)
        assert found[row] == pytest.approx(naive_products(gram(xs[row]), gram(ys[row]), unbiased), rel=1e-9)


@pytest.mark.parametrize("unbiased", [True, False])
def test_digits_remain_without_a_direction_that_is_a_hundred_thousand_times_the_others(unbiased):
    """The products of what remains are 1e-10 times those of the whole matrices."""
    made = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(24, 7, generator=made, dtype=torch.float64) * 1.0).Q
    basis = torch.linalg.qr(basis - basis.mean(0)).Q
    rest = basis[:, 1:] * torch.tensor([1.0, 0.9, 0.7, 0.5, 0.3, 0.2])
    k = 1e5 * torch.outer(basis[:, 0], basis[:, 0]) + rest @ rest.T
    u, n = k - torch.diag(k.diagonal()), len(k)
    shift = u.sum(1) / (n - 2) - u.sum() / (2 * (n - 1) * (n - 2))
    u = u - shift[:, None] - shift
    u.fill_diagonal_(0)
    grams = CenteredGrams(u[None], k.diagonal()[None])
    removed = direction(torch.tensor([1e5]).double(), basis[None, :, 0])
    whole = whole_products(grams, grams)
    found = products_without(grams, grams, removed, removed, whole, unbiased=unbiased)[:, 0].numpy()
    expected = naive_products(*[(rest @ rest.T).numpy()] * 2, unbiased)
    assert found == pytest.approx(expected, rel=1e-3)
    assert found[0] < 1e-9 * float(whole[0])
