"""`CKAResult`: shapes, summaries, confidence intervals."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from lightning_cka import CKAResult
from sample_result import make_result


def test_summaries():
    assert make_result().same_named() == {"a": pytest.approx(-0.01), "b": 0.5}
    assert make_result().mean() == pytest.approx(0.245)
    other = CKAResult(make_result().matrix, ("x", "y"), ("b", "c", "a"))
    assert other.mean_all_pairs() == pytest.approx((1 + 0.25 - 0.01 + 0.5 + 1 / 3) / 5, abs=1e-6)
    with pytest.warns(UserWarning, match=r"no layers are paired, .*mean_all_pairs\(\) averages all pairs"):
        assert math.isnan(other.mean())
    own = CKAResult(torch.tensor([[1, 0.2], [0.2, 1]]), ("a", "b"), ("a", "b"), self_comparison=True)
    assert own.mean() == pytest.approx(0.2)


def test_it_is_frozen_and_its_shapes_are_checked():
    with pytest.raises(FrozenInstanceError):
        make_result().epoch = 4
    with pytest.raises(ValueError, match=r"matrix must have shape \(1, 2\) to fit the layers, but has \(2, 2\)"):
        CKAResult(torch.eye(2), ("a",), ("a", "b"))


def test_confidence_intervals_are_those_of_students_t():
    low, high = make_result(effective_batches=5.0).confidence_interval(0.95)
    quantile = 2.776445105  # Tables: 4 degrees of freedom, 0.975.
    assert low[0, 1].item() == pytest.approx(0.25 - quantile * 0.025)
    assert high[0, 0].item() == pytest.approx(1 + quantile * 0.1)  # Not clipped.
    assert high[1, 2].isnan()
    narrow = make_result(effective_batches=5.0).confidence_interval(0.5)
    assert (high - narrow[1])[0, 0] > 0
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), but is 95"):
        make_result(effective_batches=5.0).confidence_interval(95)
    for missing in (make_result(), make_result(effective_batches=5.0, standard_error=None)):
        with pytest.raises(ValueError, match="no standard errors, or no effective number of batches"):
            missing.confidence_interval()
