"""Linear predictivity equals ridge regression that is fitted without each sample in turn."""

import math

import naive_blocks
import numpy as np
import pytest
import torch
from lightning_cka.functional import centered_gram, linear_predictivity

RNG = np.random.RandomState(1337)
X = RNG.randn(40, 10)
Y = RNG.randn(40, 10) + X


def predictivity(x, y, alpha=0.01):
    return linear_predictivity(*(centered_gram(np.asarray(z)) for z in (x, y)), alpha=alpha).item()


@pytest.mark.parametrize("alpha", [1e-6, 0.01, 1, 1e3])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X, Y),
        (Y, X[:, :3]),
        (X[:, :1] + 100, 5 * Y),
        (RNG.randn(12, 30), RNG.randn(12, 2)),  # More features than samples.
    ],
)
def test_it_is_that_of_refitted_regressions(x, y, alpha):
    assert predictivity(x, y, alpha) == pytest.approx(naive_blocks.predictivity(x, y, alpha), abs=1e-7)


def test_a_linear_function_is_predicted_but_not_its_argument():
    y = X[:, :2] @ RNG.randn(2, 3)
    assert predictivity(X, y, 1e-6) == pytest.approx(1, abs=1e-6)
    assert predictivity(y, X, 1e-6) < 0.3


def test_unrelated_features_predict_worse_than_the_mean():
    assert predictivity(X, RNG.randn(40, 5)) < 0


def test_it_tends_to_0_with_a_large_penalty():
    assert predictivity(X, Y, 1e12) == pytest.approx(0, abs=1e-9)


def test_it_does_not_change_with_location_scale_and_rotation():
    rotation = np.linalg.qr(RNG.randn(10, 10))[0]
    assert predictivity(7 * X @ rotation + 3, 0.1 * Y @ rotation - 5) == pytest.approx(predictivity(X, Y), abs=1e-9)


def test_it_is_nan_for_features_without_variance_or_with_nan():
    constant, broken = np.ones((40, 3)), X.copy()
    broken[3, 2] = np.nan
    for z in (constant, broken):
        assert math.isnan(predictivity(X, z))
        assert math.isnan(predictivity(z, X))


@pytest.mark.parametrize("alpha", [0, -1, math.nan, math.inf])
def test_alpha_must_be_positive(alpha):
    with pytest.raises(ValueError, match="alpha must be a finite number greater than 0, but is"):
        predictivity(X, Y, alpha)


def test_wrong_shapes_raise():
    with pytest.raises(ValueError, match="must be of the same samples"):
        linear_predictivity(torch.eye(5), torch.eye(4))
    with pytest.raises(ValueError, match="at least 3 samples are needed, but n = 2"):
        linear_predictivity(torch.eye(2), torch.eye(2))
