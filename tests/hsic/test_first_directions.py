"""The leading directions of a batch are computed once, and are those of its first samples."""

import copy
from dataclasses import replace

import pytest
import torch
from lightning_cka.hsic import first_directions, leading
from lightning_cka.hsic.first_directions import FirstDirections, first_grams
from lightning_cka.hsic.leading import leading_eigenvectors
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch


def packed(layers=5, n=40):
    made = torch.Generator().manual_seed(0)
    return pack_features([torch.randn(n, 4 + layer, generator=made) for layer in range(layers)])


def test_layers_in_parts_have_the_same_directions(monkeypatch):
    whole = FirstDirections().of(packed())
    monkeypatch.setattr(first_directions, "_MAX_ENTRIES", 3 * 40**2)
    monkeypatch.setattr(leading, "_MAX_ENTRIES", 2 * 40**2)
    parts = FirstDirections().of(packed())
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-7, equal_nan=True)


def test_directions_are_computed_once_but_not_for_other_matrices():
    batch = BankBatch(0, packed(), "", tuple(range(40)))
    found = batch.directions.of(batch.grams)
    assert batch.directions.of(batch.grams).vectors is found.vectors
    assert batch.host_copy().directions.of(batch.grams).vectors is found.vectors
    other = packed(layers=6)
    assert len(replace(batch, grams=other).directions.of(other).values) == 6
    assert copy.deepcopy(batch).directions.of(batch.grams).vectors is not found.vectors


@pytest.mark.parametrize("size", [3, 20, 37])
def test_groups_explain_the_largest_part_of_the_variance(size):
    made = torch.Generator().manual_seed(size)
    x = torch.randn(40, 6, generator=made, dtype=torch.float64)
    x[:size] += 4
    grams = pack_features([x])
    found = FirstDirections().of(grams)
    vector = leading_eigenvectors(first_grams(grams, slice(None))).vectors[0]
    ordered = vector.sort().values
    between = [k * float(ordered[:k].mean()) ** 2 + (40 - k) * float(ordered[k:].mean()) ** 2 for k in range(1, 40)]
    assert float(found.separation) == pytest.approx(max(between), rel=1e-9)
    groups = found.groups()[0]
    low = vector.argsort()[: 1 + between.index(max(between))]
    assert {int(i) for i in (groups < 0).nonzero()} == set(low.tolist())
    assert float(groups.sum()) == pytest.approx(0, abs=1e-12)
    assert float(groups.norm()) == pytest.approx(1)
