"""`CKAResult`: shapes, summaries, files."""

import json
import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from lightning_cka import CKAResult
from lightning_cka.compare.diagnostics import Diagnostics, LayerDiagnostics, LeaveOneOut, SampleRatio
from lightning_cka.compare.flags import Flag


def result(**kwargs):
    matrix = torch.tensor([[1.0, 0.25, -0.01], [0.5, 1 / 3, float("nan")]], dtype=torch.float64)
    defaults = {"standard_error": matrix.abs() / 10, "epoch": 3, "step": 40, "num_samples": 96}
    return CKAResult(matrix, ("a", "b"), ("b", "c", "a"), **(defaults | kwargs))


def test_files_give_back_every_digit(tmp_path):
    before = result()
    before.save(tmp_path / "r.json")
    after = CKAResult.load(tmp_path / "r.json")
    assert torch.equal(after.matrix.nan_to_num(7), before.matrix.nan_to_num(7))
    assert torch.equal(after.standard_error.nan_to_num(7), before.standard_error.nan_to_num(7))
    assert (after.layers, after.reference_layers, after.epoch, after.step) == (("a", "b"), ("b", "c", "a"), 3, 40)
    assert json.loads((tmp_path / "r.json").read_text())["matrix"][1][2] is None
    result(standard_error=None).save(tmp_path / "r.json")
    assert CKAResult.load(tmp_path / "r.json").standard_error is None


def test_summaries():
    assert result().same_named() == {"a": pytest.approx(-0.01), "b": 0.5}
    assert result().mean() == pytest.approx(0.245)
    other = CKAResult(result().matrix, ("x", "y"), ("b", "c", "a"))
    assert other.mean() == pytest.approx((1 + 0.25 - 0.01 + 0.5 + 1 / 3) / 5, abs=1e-6)
    own = CKAResult(torch.tensor([[1, 0.2], [0.2, 1]]), ("a", "b"), ("a", "b"), self_comparison=True)
    assert own.mean() == pytest.approx(0.2)


def test_it_is_frozen_and_of_one_shape():
    with pytest.raises(FrozenInstanceError):
        result().epoch = 4
    with pytest.raises(ValueError, match=r"matrix must have shape \(1, 2\) to fit the layers, but has \(2, 2\)"):
        CKAResult(torch.eye(2), ("a",), ("a", "b"))


def test_diagnostics_are_in_the_file(tmp_path):
    layer = LayerDiagnostics(3.5, (SampleRatio(17, 83.5), SampleRatio(2, 1.5)), (SampleRatio(17, math.nan),))
    before = Diagnostics(
        {"a": layer},
        {"b": LayerDiagnostics(math.nan)},
        {"b": LeaveOneOut(17, math.nan, 0.5)},
        (Flag("a", "trace_ratio", 83.5, 20.0, (17,)), Flag("b", "effective_dimension", 1.5, 2.0, of_reference=True)),
        "dataset index",
    )
    whole = result(
        diagnostics=before, effective_batches=7.5, mean_standard_error=math.nan, unbiased=False, kernel="rbf"
    )
    whole.save(tmp_path / "r.json")
    after = CKAResult.load(tmp_path / "r.json")
    assert repr(after.diagnostics) == repr(before)  # Equality, for which nan is nan.
    assert after.flags == before.flags
    assert (after.effective_batches, after.unbiased, after.kernel) == (7.5, False, "rbf")
    assert after.diagnostics.layers["a"].trace_ratio == 83.5


def test_a_file_of_before_there_were_diagnostics_loads(tmp_path):
    result().save(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    for name in ("unbiased", "effective_batches", "mean_standard_error", "diagnostics"):
        del content[name]
    (tmp_path / "r.json").write_text(json.dumps(content))
    after = CKAResult.load(tmp_path / "r.json")
    assert after.flags == ()
    assert after.unbiased


def test_confidence_intervals_are_students():
    low, high = result(effective_batches=5.0).confidence_interval(0.95)
    quantile = 2.776445105  # Tables: 4 degrees of freedom, 0.975.
    assert low[0, 1].item() == pytest.approx(0.25 - quantile * 0.025)
    assert high[0, 0].item() == pytest.approx(1 + quantile * 0.1)  # Not clipped.
    assert high[1, 2].isnan()
    narrow = result(effective_batches=5.0).confidence_interval(0.5)
    assert (high - narrow[1])[0, 0] > 0
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), but is 95"):
        result(effective_batches=5.0).confidence_interval(95)
    for missing in (result(), result(effective_batches=5.0, standard_error=None)):
        with pytest.raises(ValueError, match="no standard errors, or not the number of batches"):
            missing.confidence_interval()
