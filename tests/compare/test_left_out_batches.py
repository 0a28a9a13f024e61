"""What results keep of each batch: in files and checkpoints, damaged or not, and in results without it."""

import copy
import json
import pickle

import pytest
import torch
from damage import assert_refused, with_random_changes
from lightning_cka import CKAResult
from lightning_cka.compare.left_out_batches import left_out_checksum
from lightning_cka.compare.result_fields import LATER_FIELDS
from sample_result import make_left_out_batches, make_result


def whole():
    return make_result(left_out_batches=make_left_out_batches(), effective_batches=2.5)


def content_of(record):
    values = [[None if entry != entry else entry for entry in row] for row in record.values.tolist()]
    return (record.batches, record.weights.tolist(), record.names, values)


@pytest.fixture
def path(tmp_path):
    whole().save(tmp_path / "r.json")
    return tmp_path / "r.json"


def test_files_and_checkpoints_keep_every_digit(path, tmp_path):
    before = whole().left_out_batches
    torch.save(whole().state(), tmp_path / "state.ckpt")
    state = torch.load(tmp_path / "state.ckpt", weights_only=True)
    for result in (CKAResult.load(path), CKAResult.from_state(state), pickle.loads(pickle.dumps(whole()))):
        assert content_of(result.left_out_batches) == content_of(before)
        assert result.left_out_batches.all_pairs is None
    assert copy.deepcopy(whole()).left_out_batches.names == ("a", "b")


def test_all_pairs_are_not_saved(tmp_path):
    record = make_left_out_batches()
    pairs = torch.rand(3, 2, 3, dtype=torch.float64)
    record = type(record)(**(vars(record) | {"all_pairs": pairs}))
    result = make_result(left_out_batches=record)
    assert torch.equal(record.matrices((2, 3), result.same_named_pairs()), pairs)
    result.save(tmp_path / "r.json")
    loaded = CKAResult.load(tmp_path / "r.json").left_out_batches
    assert content_of(loaded) == content_of(record)
    matrices = loaded.matrices((2, 3), result.same_named_pairs())
    assert torch.equal(matrices[:, 0, 2].nan_to_num(7), record.values[0].nan_to_num(7))
    assert torch.equal(matrices[:, 1, 0], record.values[1])
    assert matrices.isnan().sum() == 3 * 4 + 1


def test_a_file_without_them_loads_and_a_difference_says_what_is_missing(path):
    """Files of older versions have a checksum that does not know this field."""
    content = json.loads(path.read_text())
    assert set(LATER_FIELDS) <= content.keys()
    del content["left_out_batches"]
    path.write_text(json.dumps(content))
    old = CKAResult.load(path)
    assert old.left_out_batches is None
    with pytest.raises(ValueError, match="the later result has no left_out_batches"):
        old.difference(whole())
    with pytest.raises(ValueError, match="the earlier result has no left_out_batches"):
        whole().difference(old)


@pytest.mark.filterwarnings("ignore:.*unknown fields are ignored")
def test_damage_is_noticed(path):
    """A changed value is refused. Only a change of the field's own name leaves a result without the field."""
    content, expected, refused = json.loads(path.read_text()), content_of(make_left_out_batches()), 0
    for changed in with_random_changes(content["left_out_batches"], 300):
        path.write_text(json.dumps(content | {"left_out_batches": changed}))
        try:
            record = CKAResult.load(path).left_out_batches
        except ValueError as error:
            assert_refused(error, "r.json")
            refused += 1
        else:
            assert record is None or content_of(record) == expected
    assert refused > 200


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"weights": [1.0, 2.0]}, "left_out_batches is damaged"),
        ({"weights": [1.0, None, 2.0]}, "left_out_batches is damaged"),
        ({"names": ["a"]}, "left_out_batches is damaged"),
        ({"values": [[0.5], [0.5]]}, "left_out_batches is damaged"),
        ({"values": [[0.5, 0.5, 2.0]] * 2}, r"left_out_batches.values must be a matrix of numbers in \[-1, 1\]"),
        ({"batches": [1, 2, 3]}, "left_out_batches.batches.0 must be a string"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_any_checksum(path, changes, problem):
    content = json.loads(path.read_text())
    record = content["left_out_batches"] | changes
    content["left_out_batches"] = record | {"checksum": left_out_checksum(record)}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=problem):
        CKAResult.load(path)
