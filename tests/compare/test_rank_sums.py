"""Effective ranks of layers, as means over batches, against NumPy; the largest ones so far, and the flag."""

from dataclasses import replace

import naive
import numpy as np
import pytest
import torch
from gram_banks import bank_of_features, ignore_few_samples
from lightning_cka import CKAResult, GramBank, Thresholds, compare_banks
from lightning_cka.compare.find_flags import rank_flags
from lightning_cka.compare.flag_messages import flag_label, flag_messages, flag_summary
from lightning_cka.compare.layer_ranks import LayerRank, LayerRanks, PeakRank, ranks_with_peaks
from lightning_cka.compare.rank_sums import RankSums
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.sample_selection import SampleSelection
from lightning_cka.probe.tokens import MAX_TOKENS, token_kind
from sample_result import make_result

CPU = torch.device("cpu")


def features(seed, n=20):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator) * torch.tensor([5, 3, 1, 1, 1, 0.5]) + 2


def ranks_of(bank, selection=None):
    sums = RankSums(bank.layers, selection or SampleSelection(None, None), bank.sample_kind)
    for batch in bank:
        sums.add(batch)
    return sums.result(CPU, distributed=False)


def test_ranks_are_means_over_batches_with_the_error_of_a_mean():
    batches = [features(0), features(1), features(2, 17)]
    found, n = ranks_of(bank_of_features([[each, 50 * each.tanh()] for each in batches], ("a", "b")))
    for name, change in (("a", torch.clone), ("b", torch.tanh)):
        expected = [naive.effective_rank(change(each).numpy()) for each in batches]
        value, error, count, _ = found[name]
        assert value == pytest.approx(np.mean(expected), rel=1e-5)
        assert error == pytest.approx(np.std(expected, ddof=1) / 3**0.5, rel=1e-3)
        assert count == 3
    assert n == 17


@ignore_few_samples
def test_the_effective_dimension_is_that_of_the_diagnostics():
    bank = bank_of_features([[features(seed), 50 * features(seed).tanh()] for seed in range(3)], ("a", "b"))
    diagnostics = compare_banks(bank, bank).diagnostics.layers
    for name, rank in ranks_of(bank)[0].items():
        assert rank.effective_dimension == pytest.approx(diagnostics[name].effective_dimension)


def test_small_batches_do_not_count():
    batches = [features(0), features(1, 16), features(2, 9)]
    found, n = ranks_of(bank_of_features([[each] for each in batches]))
    assert found["a"].value == pytest.approx(np.mean([naive.effective_rank(each.numpy()) for each in batches[:2]]))
    assert (found["a"].num_batches, n) == (2, 16)


def test_samples_that_are_bad_or_excluded_are_left_out_and_groups_do_not_matter():
    x = features(0)
    bad = x.clone()
    bad[3] = torch.nan
    kept = [place for place in range(20) if place not in (3, 5)]
    bank = bank_of_features([[bad, x]], ("bad", "good"))
    found, n = ranks_of(bank, SampleSelection([5], [place % 2 for place in range(20)]))
    assert found["bad"].value == pytest.approx(naive.effective_rank(x[kept].numpy()), rel=1e-5)
    assert found["good"].value == pytest.approx(naive.effective_rank(x[[*range(5), *range(6, 20)]].numpy()), rel=1e-5)
    assert n == 18


def test_layers_without_variance_have_rank_zero_and_undefined_ones_have_none():
    found, n = ranks_of(bank_of_features([[torch.full((20, 2), 0.1), torch.full((20, 2), torch.nan)]], ("c", "nan")))
    assert found["c"].value == 0
    assert np.isnan(found["c"].standard_error)
    assert np.isnan(found["nan"].value)
    assert found["nan"].num_batches == 0
    assert n == 20


def test_batches_of_tokens_of_the_same_sequences_count_as_one():
    bank, values = GramBank(("a",), "model", token_kind("dataset index", "tokens:2")), []
    for index in range(6):
        draw, first = index % 2, 20 * (index // 2)
        x = features(index)
        samples = tuple(MAX_TOKENS * sequence + draw for sequence in range(first, first + 20))
        bank.add(BankBatch(index, pack_features([x]), str(index), samples))
        values.append(naive.effective_rank(x.numpy()))
    found, _ = ranks_of(bank)
    by_cluster = np.mean(np.reshape(values, (3, 2)), 1)
    assert found["a"].num_batches == 3
    assert found["a"].value == pytest.approx(np.mean(values), rel=1e-5)
    assert found["a"].standard_error == pytest.approx(np.std(by_cluster, ddof=1) / 3**0.5, rel=1e-3)


def ranks(value, error=0.1, before=None, epoch=0):
    return ranks_with_peaks({"a": LayerRank(value, error, 8, 2.5)}, 20, before, epoch, 10 * epoch)


def test_the_largest_rank_so_far_is_kept():
    first = ranks(3.0)
    assert first.peaks == {"a": PeakRank(3.0, 0.1, 8, 0, 0)}
    assert first.loss("a") == (0.0, 0.0)
    second = ranks(8.0, 0.2, first, 1)
    third = ranks(2.0, 0.4, second, 2)
    assert third.peaks == second.peaks == {"a": PeakRank(8.0, 0.2, 8, 1, 10)}
    value, error = third.loss("a")
    assert value == pytest.approx(0.75)
    # The errors of 2 and of 8 change the quotient by 0.4 / 8 and by 2 * 0.2 / 64.
    assert error == pytest.approx(np.hypot(0.4 / 8, 2 * 0.2 / 64))
    assert third.smallest_share == pytest.approx(0.25)
    undefined = ranks(torch.nan, torch.nan, third, 3)
    assert undefined.peaks == third.peaks
    assert np.isnan(undefined.loss("a").value)
    assert np.isnan(undefined.smallest_share)
    assert ranks(0.0, 0.0, third, 4).smallest_share == 0


@pytest.mark.parametrize(
    ("value", "error", "threshold", "is_flagged"),
    [(4.1, 0.1, 0.5, False), (3.9, 0.1, 0.5, True), (3.9, 3.0, 0.5, False), (0, 0, 0.5, True), (3.9, 0.1, None, False)],
)
def test_a_loss_above_the_threshold_and_its_error_is_flagged(value, error, threshold, is_flagged):
    found = ranks(value, error, ranks(8.0), 1)
    flags = rank_flags(found, Thresholds(rank_loss=threshold))
    assert [(flag.layer, flag.reason) for flag in flags] == [("a", "rank_loss")] * is_flagged
    assert all(flag.value == pytest.approx(1 - value / 8) for flag in flags)


def test_the_flag_names_both_epochs():
    found = ranks(2.0, 0.1, ranks(8.0), 7)
    result = make_result(ranks=found, epoch=7, step=70)
    (flag,) = rank_flags(found, Thresholds())
    (message,) = flag_messages([flag], "sample", result, " with 'initial'")
    start = "CKA with 'initial': layers that lost more than 50 % of their largest effective rank so far: "
    assert message.startswith(f"{start}a (2.0 in epoch 7, but 8.0 in epoch 0). ")
    assert flag_label(flag) == "a (75 % lost)"
    assert flag_summary([flag], "sample") == ["lost > 50 % of the largest effective rank so far: a (75 % lost)"]


def test_results_with_ranks_are_saved_and_older_files_have_none(tmp_path):
    found = ranks_with_peaks({"b": LayerRank(torch.nan, torch.nan, 0, torch.nan)}, 20, ranks(8.0), None, 5)
    found = replace(found, layers={**found.layers, "a": LayerRank(2.5, torch.nan, 1, 2.25)}, peaks=ranks(8.0).peaks)
    result = make_result(ranks=found)
    result.save(tmp_path / "a.json")
    for again in (CKAResult.load(tmp_path / "a.json"), CKAResult.from_state(result.state())):
        assert isinstance(again.ranks, LayerRanks)
        assert repr(again.ranks) == repr(found)
    make_result().save(tmp_path / "b.json")
    assert '"ranks"' not in (tmp_path / "b.json").read_text()
    assert CKAResult.load(tmp_path / "b.json").ranks is None
