"""`CKAResult`: shapes, summaries, files."""

import json
from dataclasses import FrozenInstanceError

import pytest
import torch
from lightning_cka import CKAResult


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
    own = CKAResult(torch.tensor([[1, 0.2], [0.2, 1]]), ("a", "b"), ("a", "b"), within=True)
    assert own.mean() == pytest.approx(0.2)


def test_it_is_frozen_and_of_one_shape():
    with pytest.raises(FrozenInstanceError):
        result().epoch = 4
    with pytest.raises(ValueError, match=r"matrix must have shape \(1, 2\) to fit the layers, but has \(2, 2\)"):
        CKAResult(torch.eye(2), ("a",), ("a", "b"))
