"""Leading eigenvectors against a full decomposition, and matrices without them against features."""

import naive
import numpy as np
import pytest
import torch
from lightning_cka.hsic.leading import CenteredGrams, inner, leading_eigenvectors
from lightning_cka.hsic.packed import diagonals
from lightning_cka.hsic.stack import pack_features
from lightning_cka.hsic.subset import first_samples


def centered(features, limit=10**6):
    packed = pack_features(features)
    u, offsets = first_samples(packed, limit)
    grams = CenteredGrams(u, diagonals(packed._replace(offsets=offsets)))
    return grams, packed.scales.double()


def gram(x):
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    return naive.fast_gram(x - x.mean(0))


def direction(n, d, strength, dtype, seed=0):
    """Features with one direction of a given standard deviation."""
    made = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=made, dtype=torch.float64)
    return (x + strength * torch.randn(n, 1, generator=made) * torch.randn(1, d, generator=made)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [16, 33, 64])
@pytest.mark.parametrize("strength", [1, 3, 100])
def test_leading_eigenvectors_equal_those_of_a_full_decomposition(dtype, n, strength):
    features = [direction(n, d, strength, dtype, seed) for seed, d in enumerate((3, 20, 200))]
    grams, scales = centered(features)
    found = leading_eigenvectors(grams)
    rest = grams.without(found.vectors * (found.values / 2)[:, None], found.vectors)
    for row, x in enumerate(features):
        values, vectors = np.linalg.eigh(gram(x))
        assert float(found.values[row] * scales[row] ** 2) == pytest.approx(values[-1], rel=1e-5)
        assert abs(vectors[:, -1] @ found.vectors[row].numpy()) == pytest.approx(1, abs=1e-4)
        assert float((found.vectors[row] ** 3).sum()) >= 0
        without = gram(x) - values[-1] * np.outer(vectors[:, -1], vectors[:, -1])
        own = naive.unbiased_hsic(without, without) * n * (n - 3)
        square = float(inner(rest, rest, unbiased=True)[row] * scales[row] ** 4)
        assert square == pytest.approx(own, rel=0.05 if strength == 100 and dtype == torch.float32 else 1e-3)


def test_a_direction_that_was_not_found_is_nan_and_not_wrong():
    made = torch.Generator().manual_seed(0)
    noise = torch.randn(256, 2000, generator=made, dtype=torch.float64)  # Its eigenvalues are close to each other.
    one_feature = torch.randn(256, 1, generator=made, dtype=torch.float64)  # Nothing remains without its direction.
    two = torch.randn(256, 2, generator=made, dtype=torch.float64) @ torch.tensor([[3.0, 0, 1], [0, 1, 1]]).double()
    features = [
        noise,
        one_feature,
        one_feature.float(),
        two,
        two.float(),
        torch.zeros(256, 3).double(),
        direction(256, 9, 2, noise.dtype),
    ]
    found = leading_eigenvectors(centered(features)[0])
    assert found.values.isnan().tolist() == [True] * 6 + [False]
    assert found.vectors.isnan().all(1).tolist() == [True] * 6 + [False]


def test_no_random_number_is_drawn_and_results_are_equal():
    grams, _ = centered([direction(64, 8, 2, torch.float32)])
    before = torch.get_rng_state()
    one, other = leading_eigenvectors(grams), leading_eigenvectors(grams)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.vectors, other.vectors)


@pytest.mark.parametrize("unbiased", [True, False])
def test_products_equal_the_definitions(unbiased):
    x, y = (torch.randn(20, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64) for d in (3, 7))
    (one, s), (other, t) = centered([x]), centered([y])
    hsic, weight = (naive.unbiased_hsic, 20 * 17) if unbiased else (naive.biased_hsic, 19**2)
    found = float(inner(one, other, unbiased=unbiased) * (s * t) ** 2)
    assert found == pytest.approx(hsic(gram(x), gram(y)) * weight, rel=1e-10)


def test_removing_a_pair_of_vectors_centers_within_groups():
    """With a vector that is constant in each group, this is the Gram matrix of features centered in each group."""
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grams, scales = centered([x])
    is_first = torch.arange(20) < 7
    group = torch.where(is_first, -1 / 7, 1 / 13).double()[None]
    group = group / group.norm()
    product = grams.times(group)
    within = grams.without(group, product - group * (product * group).sum() / 2)
    for part in (is_first, ~is_first):
        x[part] -= x[part].mean(0)
    expected = naive.unbiased_hsic(gram(x), gram(x)) * 20 * 17
    assert float(inner(within, within, unbiased=True) * scales**4) == pytest.approx(expected, rel=1e-10)
