"""A damaged result gives one line of `ValueError`, or exactly the same numbers."""

import json
import math
import tracemalloc
from dataclasses import fields

import pytest
import torch
from damage import assert_refused, nested, truncated, with_flipped_bits, with_random_changes
from lightning_cka import CKAResult
from lightning_cka.compare.diagnostics import Diagnostics, LayerDiagnostics, LeaveOneOut, SampleRatio
from lightning_cka.compare.flags import Flag
from lightning_cka.compare.result_fields import checked_result_fields
from lightning_cka.runtime import unchecked_files
from lightning_cka.runtime.checked_values import Place
from sample_result import make_result

NAME = "r.json"


@pytest.fixture
def path(tmp_path):
    return tmp_path / NAME


def whole_result():
    layer = LayerDiagnostics(3.5, (SampleRatio(17, 83.5), SampleRatio(2, 1.5)), (SampleRatio(17, math.nan),))
    flags = (Flag("a", "trace_ratio", 83.5, 20.0, (17,)), Flag("b", "effective_dimension", 1.5, 2.0, of_reference=True))
    diagnostics = Diagnostics(
        {"a": layer}, {"b": LayerDiagnostics(math.nan)}, {"b": LeaveOneOut(17, math.nan, 0.5)}, flags, "dataset index"
    )
    return make_result(diagnostics=diagnostics, effective_batches=7.5, mean_standard_error=0.25, num_batches=6)


def state_of(result):
    return repr({name: value for name, value in result.state().items() if not isinstance(value, torch.Tensor)}) + repr(
        (result.matrix.tolist(), None if result.standard_error is None else result.standard_error.tolist())
    )


def is_refused(path, expected=None):
    """Return whether a result is refused; otherwise check that it is the expected one."""
    try:
        result = CKAResult.load(path)
    except ValueError as error:
        assert_refused(error, NAME)
        return True
    assert expected is None or state_of(result) == expected
    return False


@pytest.mark.filterwarnings("ignore:.*unknown fields are ignored")
def test_flipped_bits_and_truncations(path):
    whole_result().save(path)
    content, expected = path.read_bytes(), state_of(whole_result())
    refused = 0
    for changed in with_flipped_bits(content, 300):
        path.write_bytes(changed)
        refused += is_refused(path, expected)
    assert refused > 150  # The other bits are in spaces, line breaks, and in names that hold a default.
    for changed in truncated(content, 50):
        path.write_bytes(changed)
        assert is_refused(path)


@pytest.mark.filterwarnings("ignore:.*unknown fields are ignored")
@pytest.mark.parametrize("has_checksum", [True, False])
def test_random_changes(path, has_checksum):
    whole_result().save(path)
    content, expected = json.loads(path.read_text()), state_of(whole_result())
    if not has_checksum:
        del content["checksum"]
    for changed in with_random_changes(content, 300):
        path.write_text(json.dumps(changed))
        is_refused(path, expected if has_checksum else None)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"matrix": [[1, 2, 0], [0, 0, 0]]}, r"matrix must be a matrix of numbers in \[-1, 1\], but is 2"),
        ({"matrix": [[1, 0], [0]]}, r"matrix must have shape \(2, 3\)"),
        ({"matrix": [[1, 0], [0, 1]]}, r"matrix must have shape \(2, 3\)"),
        ({"matrix": [[1, True, 0], [0, 0, 0]]}, "but is True"),
        ({"matrix": "x" * 10_000}, "matrix must be a matrix, but is 'xxx"),
        ({"standard_error": [[-0.1, 0, 0], [0, 0, 0]]}, r"standard_error must .* numbers in \[0, inf\], but is -0.1"),
        ({"layers": ["a", "a"]}, "layers must be a list of distinct strings"),
        ({"layers": ["a", 1]}, "layers must be a list of distinct strings"),
        ({"num_samples": -1}, "num_samples must be an integer of at least 0, but is -1"),
        ({"num_samples": 1.5}, "num_samples must be an integer"),
        ({"epoch": 2**80}, "epoch must be an integer"),
        ({"effective_batches": "7"}, "effective_batches must be a number"),
        ({"mean_standard_error": -1}, "mean_standard_error must be a number"),
        ({"unbiased": 1}, "unbiased must be true or false"),
        ({"kernel": None}, "kernel must be a string"),
        ({"diagnostics": []}, "diagnostics must be a dictionary"),
        ({"diagnostics": {"layers": {}}}, "diagnostics has no reference_layers"),
    ],
)
def test_fields_of_the_wrong_kind_are_refused_without_a_checksum(path, changes, problem):
    make_result().save(path)
    content = json.loads(path.read_text()) | {"checksum": None} | changes
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=problem) as caught:
        CKAResult.load(path)
    assert_refused(caught.value, NAME)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"[" + b"[]," * 400_000 + b"[]]",
        b'{"matrix": ' + b"9" * 5000 + b"}",
        b'{"matrix": [[1e999]]}',
        b'{"matrix": [[NaN]]}',
    ],
)
def test_other_json(path, content):
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"'r.json' is not a result of lightning_cka: ") as caught:
            CKAResult.load(path)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(content) + 2**20
    finally:
        tracemalloc.stop()
    assert_refused(caught.value, NAME)


def test_the_message_about_a_file_with_a_long_name_is_short(tmp_path):
    path = tmp_path / ("x" * 240 + ".json")
    path.write_text(json.dumps({"matrix": "y" * 500}))
    with pytest.raises(ValueError, match="'xxx") as caught:
        CKAResult.load(path)
    assert_refused(caught.value, "x" * 100)


def test_unknown_fields_are_ignored_with_a_warning(path):
    whole_result().save(path)
    content = json.loads(path.read_text())
    content |= {"format_version": 7, "package_version": "9.9", "rank": 3}
    content["diagnostics"]["layers"]["a"]["entropy"] = 0.5
    content["diagnostics"]["flags"][0].append("later")
    path.write_text(json.dumps(content))
    with pytest.warns(
        UserWarning, match=r"'r.json' was written by lightning_cka 9\.9: unknown fields .*entropy"
    ) as got:
        assert state_of(CKAResult.load(path)) == state_of(whole_result())
    assert len(got) == 1
    assert "rank" in str(got[0].message)


def test_an_older_file_is_noted_once_per_folder(path, caplog):
    make_result().save(path)
    content = json.loads(path.read_text())
    for name in ("format_version", "package_version", "checksum"):
        del content[name]
    path.write_text(json.dumps(content))
    unchecked_files._note_folder.cache_clear()
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        assert state_of(CKAResult.load(path)) == state_of(make_result())
        CKAResult.load(path)
    assert len([record for record in caplog.records if "results in" in record.message]) == 1


def test_the_fields_of_the_format_are_the_attributes():
    for result in (whole_result(), make_result(standard_error=None)):
        place = Place()
        attributes = {field.name for field in fields(CKAResult)} - {"banks"}
        assert checked_result_fields(result.state(), place).keys() == attributes
        assert place.unknown == []
    layer = checked_result_fields(whole_result().state(), Place())["diagnostics"]
    assert layer.keys() == {field.name for field in fields(Diagnostics)}
    assert layer["layers"]["a"].keys() == {field.name for field in fields(LayerDiagnostics)}
    assert len(layer["flags"][0]) == len(Flag._fields)


@pytest.mark.parametrize(
    "matrix",
    [
        None,
        torch.zeros(2, 3),
        torch.zeros(2, 3, dtype=torch.float64, device="meta"),
        torch.zeros(2, 3, dtype=torch.float64).to_sparse(),
        torch.zeros(1, 1, dtype=torch.float64).expand(2, 3),
        torch.zeros(1, 1, dtype=torch.float64).expand(10**9, 10**9),
        torch.full((2, 3), 2.0, dtype=torch.float64),
        [[0, 0, 0], nested(10_000)],
    ],
)
def test_states_with_other_matrices(matrix):
    with pytest.raises(ValueError, match="matrix must "):
        CKAResult.from_state(make_result().state() | {"matrix": matrix})
