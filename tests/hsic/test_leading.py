"""Leading eigenvectors against a full decomposition."""

import naive
import numpy as np
import pytest
import torch
from centered_features import centered, gram
from lightning_cka.hsic.leading import leading_eigenvectors
from lightning_cka.hsic.removed import direction, products_without


def with_direction(n, d, strength, dtype, seed=0):
    """Features with one direction of a given standard deviation."""
    made = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=made, dtype=torch.float64)
    return (x + strength * torch.randn(n, 1, generator=made) * torch.randn(1, d, generator=made)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [16, 33, 64])
@pytest.mark.parametrize("strength", [1, 3, 100])
def test_leading_eigenvectors_equal_those_of_a_full_decomposition(dtype, n, strength):
    features = [with_direction(n, d, strength, dtype, seed) for seed, d in enumerate((3, 20, 200))]
    grams, scales = centered(features)
    found = leading_eigenvectors(grams)
    grams, whole = grams.double(), found.squares.expand(3, -1)
    removed = direction(found.values, found.vectors)
    rest = products_without(grams, grams, removed, removed, whole, unbiased=True)[1]
    for row, x in enumerate(features):
        values, vectors = np.linalg.eigh(gram(x))
        assert float(found.values[row] * scales[row] ** 2) == pytest.approx(values[-1], rel=1e-5)
        assert abs(vectors[:, -1] @ found.vectors[row].numpy()) == pytest.approx(1, abs=1e-4)
        assert float((found.vectors[row] ** 3).sum()) >= 0
        without = gram(x) - values[-1] * np.outer(vectors[:, -1], vectors[:, -1])
        own = naive.unbiased_hsic(without, without) * n * (n - 3)
        square = float(rest[row] * scales[row] ** 4)
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
        with_direction(256, 9, 2, noise.dtype),
    ]
    found = leading_eigenvectors(centered(features)[0])
    assert found.values.isnan().tolist() == [True] * 6 + [False]
    assert found.vectors.isnan().all(1).tolist() == [True] * 6 + [False]


def test_no_random_number_is_drawn_and_results_are_equal():
    grams, _ = centered([with_direction(64, 8, 2, torch.float32)])
    before = torch.get_rng_state()
    one, other = leading_eigenvectors(grams), leading_eigenvectors(grams)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.vectors, other.vectors)


def test_squares_are_those_of_the_u_centered_matrices():
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grams, scales = centered([x])
    found = float(leading_eigenvectors(grams).squares * scales**4)
    assert found == pytest.approx(naive.unbiased_hsic(gram(x), gram(x)) * 20 * 17, rel=1e-10)
