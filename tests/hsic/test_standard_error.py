"""Standard errors and intervals against per-batch computations and known quantiles."""

import math

import pytest
import torch
from lightning_cka.hsic.standard_error import delta_method_error, student_interval


def error_of(c, a, b):
    """The standard error for one pair of layers, given its per-batch values."""
    one = c.new_tensor(float(len(c)))
    sums = (c.sum()[None, None], a.sum()[None], b.sum()[None])
    squares = ((c * c).sum()[None, None], (a * a).sum()[None], (b * b).sum()[None])
    products = tuple(each.sum()[None, None] for each in (c * a, c * b, a * b))
    return delta_method_error(sums, squares, products, one).item()


def test_the_error_is_that_of_the_linearised_ratio():
    c, a, b = torch.rand(3, 7, dtype=torch.float64) + 1
    ratio = c.sum() / (a.sum() * b.sum()).sqrt()
    residuals = c / (a.sum() * b.sum()).sqrt() - ratio / 2 * (a / a.sum() + b / b.sum())
    assert error_of(c, a, b) == pytest.approx((7 / 6 * residuals.square().sum()).sqrt().item(), rel=1e-10)


def test_the_error_is_zero_for_a_constant_ratio_and_undefined_for_one_batch():
    a = torch.rand(7, dtype=torch.float64) + 1
    assert error_of(a, a, a) < 1e-7
    assert not math.isfinite(error_of(a[:1], a[:1], a[:1]))


def test_the_interval_is_students():
    lower, upper = student_interval(torch.tensor(1.0), torch.tensor(0.1), 11, 0.95)
    assert (lower.item(), upper.item()) == pytest.approx((1 - 0.2228139, 1 + 0.2228139), abs=1e-6)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_is_between_zero_and_one(level):
    with pytest.raises(ValueError, match=rf"level must be in \(0, 1\), but is {level}"):
        student_interval(torch.tensor(1.0), torch.tensor(0.1), 11, level)
