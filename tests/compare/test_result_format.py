"""Files of results: every digit, ``nan``, diagnostics, and files of older versions."""

import json
import math

import torch
from lightning_cka import CKAResult
from lightning_cka.compare.diagnostics import Diagnostics, LayerDiagnostics, LeaveOneOut, SampleRatio
from lightning_cka.compare.flags import Flag
from sample_result import make_result


def test_files_keep_every_digit(tmp_path):
    before = make_result()
    before.save(tmp_path / "r.json")
    after = CKAResult.load(tmp_path / "r.json")
    assert torch.equal(after.matrix.nan_to_num(7), before.matrix.nan_to_num(7))
    assert torch.equal(after.standard_error.nan_to_num(7), before.standard_error.nan_to_num(7))
    assert (after.layers, after.reference_layers, after.epoch, after.step) == (("a", "b"), ("b", "c", "a"), 3, 40)
    assert json.loads((tmp_path / "r.json").read_text())["matrix"][1][2] is None
    make_result(standard_error=None).save(tmp_path / "r.json")
    assert CKAResult.load(tmp_path / "r.json").standard_error is None


def test_each_attribute_has_a_line_of_its_own(tmp_path):
    make_result().save(tmp_path / "r.json")
    lines = (tmp_path / "r.json").read_text().splitlines()
    values = [json.loads("{" + line.rstrip(",") + "}") for line in lines[1:-1]]
    assert {name: value for each in values for name, value in each.items()} == json.loads("".join(lines))
    assert all(len(each) == 1 for each in values)


def test_diagnostics_are_in_the_file(tmp_path):
    layer = LayerDiagnostics(3.5, (SampleRatio(17, 83.5), SampleRatio(2, 1.5)), (SampleRatio(17, math.nan),))
    before = Diagnostics(
        {"a": layer},
        {"b": LayerDiagnostics(math.nan)},
        {"b": LeaveOneOut(17, math.nan, 0.5)},
        (Flag("a", "trace_ratio", 83.5, 20.0, (17,)), Flag("b", "effective_dimension", 1.5, 2.0, of_reference=True)),
        "dataset index",
    )
    whole = make_result(
        diagnostics=before, effective_batches=7.5, mean_standard_error=math.nan, unbiased=False, kernel="rbf"
    )
    whole.save(tmp_path / "r.json")
    after = CKAResult.load(tmp_path / "r.json")
    assert repr(after.diagnostics) == repr(before)  # Unlike ==, this takes nan as equal to nan.
    assert after.flags == before.flags
    assert (after.effective_batches, after.unbiased, after.kernel) == (7.5, False, "rbf")
    assert after.diagnostics.layers["a"].trace_ratio == 83.5


def test_a_flag_that_is_nan_is_still_nan(tmp_path):
    flag = Flag("a", "leave_one_out", math.nan, 0.05, (17,))
    make_result(diagnostics=Diagnostics(flags=(flag,))).save(tmp_path / "r.json")
    (loaded,) = CKAResult.load(tmp_path / "r.json").flags
    assert math.isnan(loaded.value)
    assert loaded._replace(value=0.0) == flag._replace(value=0.0)


def test_a_file_without_diagnostics_loads(tmp_path):
    make_result().save(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    for name in ("unbiased", "effective_batches", "mean_standard_error", "diagnostics"):
        del content[name]
    (tmp_path / "r.json").write_text(json.dumps(content))
    after = CKAResult.load(tmp_path / "r.json")
    assert after.flags == ()
    assert after.unbiased
