"""The history of effective ranks, from banks and from results, and which layers have lost theirs."""

import naive
import numpy as np
import pytest
import torch
from gram_banks import bank_of_features
from lightning_cka import CKAResult, rank_history
from lightning_cka.compare.layer_ranks import LayerRank, ranks_with_peaks
from lightning_cka.decisions.rank_history import rank_table

# The features of layer b have this many directions of equal variance at each epoch.
DIRECTIONS = (4, 16, 12, 7, 3)


def features(epoch, count=5):
    """Features of two layers, of which the second one collapses after epoch 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 40, 20, generator=generator)
    return [[each * (1 + epoch), each[:, : DIRECTIONS[epoch]]] for each in x]


def make_banks(count=5):
    banks = [bank_of_features(features(epoch, count), ("a", "b")) for epoch in range(len(DIRECTIONS))]
    for epoch, bank in enumerate(banks):
        bank.epoch, bank.step = epoch, 10 * epoch
    return banks


def make_result(**options):
    return CKAResult(torch.ones(1, 1), ("a",), ("a",), **options)


def test_a_history_has_the_ranks_of_each_epoch(tmp_path):
    banks = make_banks()
    history = rank_history(banks)
    for epoch in range(len(DIRECTIONS)):
        for row in range(2):
            expected = [naive.effective_rank(each[row].numpy()) for each in features(epoch)]
            assert history.rank[row, epoch].item() == pytest.approx(np.mean(expected), rel=1e-5)
            error = np.std(expected, ddof=1) / 5**0.5
            assert history.standard_error[row, epoch].item() == pytest.approx(error, rel=1e-3)
    assert history.layers == ("a", "b")
    assert history.moments == ("0", "1", "2", "3", "4")
    assert history.num_samples == 40
    assert history.note == ""
    low, high = history.bounds(0.9)
    assert torch.allclose(high - low, 2 * 2.1318468 * history.standard_error)  # Student's t with 4 degrees of freedom.
    for bank in banks:
        bank.save(tmp_path / "banks" / f"epoch={bank.epoch:03d}-step={bank.step:06d}.safetensors")
    for source in (tmp_path, str(tmp_path / "banks"), sorted((tmp_path / "banks").iterdir())):
        assert torch.equal(rank_history(source).rank, history.rank)
    only = rank_history(tmp_path / "banks" / "epoch=001-step=000010.safetensors", "b")
    assert only.layers == ("b",)
    assert torch.equal(only.rank[0], history.rank[1, 1:2])


def test_layers_that_lost_rank_are_named_with_both_epochs():
    history = rank_history(make_banks())
    (fall,) = history.falls()
    # Epoch 3 has 7 of 16 directions. In epoch 2, there are still 12.
    assert fall[:4] == ("b", 3, "epoch 3", "epoch 1")
    loss = 1 - history.rank[1, 3] / history.rank[1, 1]
    assert fall.loss == pytest.approx(loss.item())
    assert 0.5 < fall.low < fall.loss < fall.high
    assert [each.place for each in history.falls(0.2)] == [2]
    assert history.falls(0.9) == []
    assert repr(history) == "RankHistory(model: 2 layers, 5 moments, ranks of at most 39, lost by b)"
    text = rank_table(history)
    assert "model, epoch 4: ranks are at most 39" in text
    assert f"  b: {100 * fall.loss:.0f} % lower in epoch 3 than in epoch 1" in text
    assert "no confidence interval" not in text
    with pytest.raises(ValueError, match=r"rank_loss must be at least 0, but is -1"):
        history.falls(-1)


def test_too_few_batches_are_said():
    history = rank_history(make_banks(3))
    assert "an interval needs about four batches" in history.note
    assert history.note in rank_table(history)
    assert all(bound.isnan().all() for bound in history.bounds())
    assert np.isnan(history.falls()[0].low)


def test_rows_have_all_values():
    history = rank_history(make_banks())
    rows = history.to_rows()
    assert len(rows) == 10
    row = rows[7]  # Epoch 3, layer b.
    assert (row["moment"], row["layer"], row["num_samples"]) == ("3", "b", 40)
    assert row["effective_rank"] == history.rank[1, 3]
    assert row["low"] < row["effective_rank"] < row["high"]
    assert row["lost"] == pytest.approx(history.falls()[0].loss)
    assert row["effective_dimension"] == history.effective_dimension[1, 3]


def test_results_with_ranks_give_the_same_history():
    history = rank_history(make_banks())
    results = [
        make_result(ranks=ranks, epoch=epoch, step=10 * epoch, model_name="model")
        for epoch, ranks in enumerate(history.ranks)
    ]
    validated = make_result(ranks=history.ranks[0], epoch=None, step=None)
    failed = make_result(epoch=5, step=50)
    again = rank_history([*results, validated, failed])
    assert again.to_rows() == history.to_rows()
    assert again.falls() == history.falls()
    # The largest rank is known although its result is missing.
    assert rank_history(results[3:]).falls()[0].peak_moment == "epoch 1"


def test_what_cannot_be_known_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"have no effective ranks. CKAMonitor\(log_ranks=True\) computes them"):
        rank_history([make_result(), make_result()])
    other = ranks_with_peaks({"c": LayerRank(1.0, 0.1, 5, 1.0)}, 40, None, 1, 10)
    first = rank_history(make_banks()).ranks[0]
    with pytest.raises(ValueError, match="ranks of different layers"):
        rank_history([make_result(ranks=first, epoch=0), make_result(ranks=other, epoch=1)])
    with pytest.raises(ValueError, match="a history of ranks needs the banks of at least one epoch"):
        rank_history(tmp_path)
    with pytest.raises(ValueError, match="different probe sets"):
        rank_history([make_banks()[0], make_banks(4)[1]])
    with pytest.raises(ValueError, match="'c' matches none"):
        rank_history(make_banks(), "c")
