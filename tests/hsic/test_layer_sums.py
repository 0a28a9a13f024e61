"""What a batch contributes to diagnostics is computed once for each model, and is the same then."""

import copy
from dataclasses import replace

import pytest
import torch
from lightning_cka import GramBank, compare_banks
from lightning_cka.compare import layer_statistics
from lightning_cka.hsic import layer_sums
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch

LIKE = torch.zeros((), dtype=torch.float64)


def packed(seed=0, n=20):
    made = torch.Generator().manual_seed(seed)
    return pack_features([torch.randn(n, 4 + layer, generator=made) for layer in range(3)])


def bank():
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    made = torch.Generator().manual_seed(1)
    data = [torch.randn(16, 8, generator=made) for _ in range(3)]
    return GramBank.from_model(model, data, progress_bar=False)


def test_the_largest_contributions_belong_to_their_samples():
    grams = packed()
    found = layer_sums.layer_sums(grams, grams, LIKE)
    rows = grams.row_squares.double() * grams.scales.double()[:, None] ** 4
    assert torch.equal(found.largest[1], rows.sort(1, descending=True).values[:, :3])
    assert torch.equal(rows.gather(1, found.places[1]), found.largest[1])
    assert found.sums[2].tolist() == pytest.approx(rows.sum(1).tolist())


def test_sums_are_computed_once_but_not_for_other_matrices():
    batch = BankBatch(0, packed(), "", tuple(range(20)))
    found = batch.sums.of(batch.grams, LIKE)
    assert batch.sums.of(batch.grams, LIKE).sums is found.sums
    assert batch.host_copy().sums.of(batch.grams, LIKE).sums is found.sums
    other = replace(batch, grams=packed(seed=1))
    assert not torch.equal(other.sums.of(other.grams, LIKE).sums, found.sums)
    assert copy.deepcopy(batch).sums.of(batch.grams, LIKE).sums is not found.sums


@pytest.mark.filterwarnings("ignore:CKA")
def test_banks_that_are_compared_again_give_the_same_diagnostics(monkeypatch):
    calls = []

    def counted(linear, grams, like):
        calls.append(linear)
        return layer_sums.LayerSums(*original(linear, grams, like))

    original = layer_sums.layer_sums
    for module in (layer_sums, layer_statistics):
        monkeypatch.setattr(module, "layer_sums", counted)
    torch.manual_seed(0)
    one, other = bank(), bank()
    first = compare_banks(one, other).diagnostics
    assert len(calls) == 6  # Three batches of each bank.
    assert repr(compare_banks(one, other).diagnostics) == repr(first)
    assert len(calls) == 6
    # Another kernel has sums of its own, which are not kept.
    rbf = compare_banks(one, other, kernel="rbf").diagnostics
    assert len(calls) == 12
    assert rbf.layers["0"].trace_ratio != first.layers["0"].trace_ratio
    assert repr(compare_banks(one, other).diagnostics) == repr(first)
