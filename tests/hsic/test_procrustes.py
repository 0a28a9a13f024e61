"""The angular Procrustes distance equals that of the features, and is a metric."""

import math

import naive_blocks
import numpy as np
import pytest
import torch
from lightning_cka.functional import centered_gram, procrustes_distance

RNG = np.random.RandomState(1337)
X = RNG.randn(100, 10)
Y = RNG.randn(100, 10) + X


def distance(x, y):
    return procrustes_distance(*(centered_gram(np.asarray(z)) for z in (x, y))).item()


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X, Y),
        (X[:, :3], Y),
        (X, Y[:, :1]),
        (X[:8], RNG.randn(8, 300)),
        (X + 1000, 1e-3 * Y),
        (X @ RNG.randn(10, 50), Y),  # The Gram matrix has a rank below the number of features.
    ],
)
def test_it_is_that_of_the_features(x, y):
    assert distance(x, y) == pytest.approx(naive_blocks.procrustes_distance(x, y), abs=1e-9)


def test_the_nuclear_norm_is_the_sum_of_roots_of_eigenvalues():
    k, ell = (z @ z.T for z in map(naive_blocks.centered, (X, Y)))
    values, vectors = np.linalg.eigh(k)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    nuclear = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ ell @ root), 0)).sum()
    assert math.cos(distance(X, Y)) == pytest.approx(nuclear / math.sqrt(np.trace(k) * np.trace(ell)), abs=1e-6)


def test_rotated_scaled_and_moved_features_have_distance_0():
    rotation = np.linalg.qr(RNG.randn(10, 10))[0]
    assert distance(X, 3 * X @ rotation + 7) < 1e-9
    assert distance(X, X) < 1e-14
    x = X.astype(np.float32)
    assert distance(x, (x @ rotation).astype(np.float32)) < 1e-3
    assert distance(X, X @ np.diag([2, *[1] * 9])) > 0.1  # Another linear map is not free.


def test_small_distances_keep_their_digits():
    noise = np.random.RandomState(0).randn(100, 10)
    ratio = distance(X, X + 2e-7 * noise) / distance(X, X + 1e-7 * noise)
    assert ratio == pytest.approx(2, rel=1e-3)  # The arc cosine of the nuclear norm would give steps of 1e-8.


def test_it_is_a_metric():
    z = RNG.randn(100, 4)
    assert distance(X, Y) == pytest.approx(distance(Y, X), abs=1e-12)
    assert distance(X, z) <= distance(X, Y) + distance(Y, z)


def test_features_in_orthogonal_directions_are_at_a_right_angle():
    x, y = np.array([1.0, 1, -1, -1]), np.array([1.0, -1, 1, -1])
    assert distance(x, y) == pytest.approx(math.pi / 2)


def test_it_is_nan_for_features_without_variance_or_with_nan():
    constant, broken = np.ones((100, 3)), X.copy()
    broken[3, 2] = np.nan
    for z in (constant, broken):
        assert math.isnan(distance(X, z))
        assert math.isnan(distance(z, X))
    assert math.isnan(distance(constant, constant))


def test_it_has_the_dtype_of_its_arguments():
    k = centered_gram(torch.randn(8, 3))
    assert procrustes_distance(k, k).dtype == torch.float32


def test_wrong_shapes_raise():
    k = torch.eye(5)
    with pytest.raises(ValueError, match=r"both Gram matrices must be of the same samples, but have n = 5 and n = 4"):
        procrustes_distance(k, torch.eye(4))
    with pytest.raises(ValueError, match=r"a Gram matrix must have shape \(n, n\), but has \(5, 3\)"):
        procrustes_distance(k[:, :3], k)
    with pytest.raises(TypeError, match="real floating-point"):
        procrustes_distance(k.int(), k)
