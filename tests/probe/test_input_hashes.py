"""Samples have the same hash if and only if their inputs are the same."""

import pytest
import torch
from lightning_cka.probe import input_hashes
from lightning_cka.probe.input_hashes import InputHashes, groups_of_copies, hashes_of_groups

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_copies_have_the_same_hash(dtype):
    x = torch.randint(0, 2, (40, 3, 5)) if dtype in (torch.bool, torch.uint8, torch.int64) else torch.randn(40, 3, 5)
    x = x.to(dtype)
    x[7], x[30] = x[2], x[2]
    hashes = InputHashes(x, 40).values()
    expected = [{j for j in range(40) if torch.equal(x[i], x[j])} for i in range(40)]
    assert [{j for j in range(40) if hashes[i] == hashes[j]} for i in range(40)] == expected
    assert InputHashes(x.transpose(1, 2).contiguous().transpose(1, 2), 40).values() == hashes
    assert InputHashes(x[:20], 20).values() == hashes[:20]


def test_small_differences_and_other_places_change_the_hash(monkeypatch):
    x = torch.zeros(1, 1000)
    found = {InputHashes(x, 1).values()}
    for place in range(1000):
        for value in (1.0, 1e-30, 2.0):
            x.zero_()[0, place] = value
            found.add(InputHashes(x, 1).values())
    assert len(found) == 3001
    whole = InputHashes(x, 1).values()
    monkeypatch.setattr(input_hashes, "_MAX_ENTRIES", 17)
    assert InputHashes(x, 1).values() == whole


def test_all_tensors_of_a_batch_count():
    x, y = torch.randn(6, 3), torch.zeros(6, 2)
    x[5] = x[0]
    assert len(set(InputHashes({"x": x, "y": y}, 6).values())) == 5
    y[5] = 1
    assert len(set(InputHashes({"x": x, "y": y}, 6).values())) == 6
    assert InputHashes({"edges": torch.zeros(2, 9)}, 6).values() == ()


def test_groups():
    groups = groups_of_copies([10, 11, 12, 13, 14, 15], [1, 2, 1, 3, 2, 1])
    assert groups == [[10, 12, 15], [11, 14]]
    numbers = hashes_of_groups([10, 11, 12, 13, 14, 15], groups)
    assert groups_of_copies([10, 11, 12, 13, 14, 15], numbers) == groups
