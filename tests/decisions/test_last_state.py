"""CKA of each layer with itself at the last moment, from banks: against naive sums and trajectories."""

from dataclasses import replace

import naive
import numpy as np
import pytest
import torch
from gram_banks import make_bank
from lightning_cka import GramBank, rank_history, trajectories
from lightning_cka.decisions.last_state import similarity_to_last
from lightning_cka.probe.tokens import MAX_TOKENS, token_kind
from moving_layers import banks_of, moving
from scipy.stats import t

pytestmark = pytest.mark.filterwarnings("ignore:CKA.*:UserWarning")


def naive_values(moments, layer):
    """CKA with the last moment and its standard error, for each moment."""
    last = [batch[layer] for batch in moments[-1]]
    own = [[batch[layer] for batch in each] for each in moments]
    values = [naive.minibatch_cka([[x] for x in xs], [[y] for y in last])[0, 0] for xs in own]
    weights = np.array([n * (n - 3) for n in map(len, last)], dtype=float)
    effective = weights.sum() ** 2 / (weights**2).sum()
    errors = []
    for xs, value in zip(own, values, strict=True):
        rest = range(len(last))
        without = [
            naive.minibatch_cka([[xs[i]] for i in rest if i != out], [[last[i]] for i in rest if i != out])[0, 0]
            for out in rest
        ]
        errors.append(np.sqrt((1 - 1 / effective) * ((np.array(without) - value) ** 2).sum()))
    return np.array(values), np.array(errors), effective


def test_values_errors_and_intervals_follow_from_naive_sums():
    moments = moving()
    found = similarity_to_last(banks_of(moments))
    for layer in range(2):
        values, errors, effective = naive_values(moments, layer)
        assert np.allclose(found.values[layer], values, atol=1e-6)
        assert np.allclose(found.standard_error[layer, :-1] ** 2, errors[:-1] ** 2, atol=1e-8)
        assert found.effective_batches == pytest.approx(effective)
        low, high = found.bounds(0.9)
        half = errors * t.ppf(0.95, effective - 1)
        assert np.allclose(low[layer], values - half, atol=1e-5)
        assert np.allclose(high[layer], values + half, atol=1e-5)
    assert found.values[0, 0] < 0.5  # The cases differ.
    assert found.values[:, -1].tolist() == pytest.approx([1, 1], abs=1e-12)


@pytest.mark.parametrize("tolerance", [0.003, 0.03, 0.1, 0.3, 0.8])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_converged_since_is_the_first_of_the_last_moments_that_all_pass(tolerance, level):
    moments = moving()
    found = similarity_to_last(banks_of(moments)).converged_since(tolerance, level)
    values, errors, effective = naive_values(moments, 0)
    passes = values - errors * t.ppf((1 + level) / 2, effective - 1) > 1 - tolerance
    place = len(moments) - 1
    while place > 0 and passes[place - 1]:
        place -= 1
    assert found == {"moves": place if place < len(moments) - 1 else None, "stays": 0}


def test_the_cases_differ():
    """Otherwise the test above could not fail."""
    found = similarity_to_last(banks_of(moving()))
    assert len({found.converged_since(tolerance, 0.95)["moves"] for tolerance in (0.003, 0.03, 0.1, 0.3, 0.8)}) >= 3


def of_tokens(bank):
    """The same bank, as if batches 0 and 1 had tokens of the same sequences, and batches 2 and 3, and so on."""
    found = GramBank(bank.layers, "Net", token_kind("dataset index", "tokens"), epoch=bank.epoch, step=bank.step)
    for batch in bank:
        first = 100 * (batch.index // 2)
        samples = tuple(MAX_TOKENS * (first + i) + batch.index % 2 for i in range(batch.grams.num_samples))
        found.add(replace(batch, samples=samples))
    return found


@pytest.mark.parametrize("convert", [lambda bank: bank, of_tokens])
def test_it_is_the_last_column_of_trajectories(convert, tmp_path):
    sizes = (16, 16, 12, 12, 16, 16, 9, 9)
    banks = [convert(make_bank(variant, sizes=sizes, epoch=variant, step=variant)) for variant in range(4)]
    for bank in banks:
        bank.save(tmp_path / f"epoch={bank.epoch:03d}-step={bank.step:06d}.safetensors")
    every, found = trajectories(banks), similarity_to_last(sorted(tmp_path.iterdir()))
    assert found.moments == every["a"].layers
    assert found.effective_batches == pytest.approx(every["a"].effective_batches)
    for row, name in enumerate(found.layers):
        assert torch.allclose(found.values[row], every[name].matrix[:, -1], rtol=0, atol=1e-6)
        errors = every[name].standard_error[:-1, -1]
        assert torch.allclose(found.standard_error[row, :-1], errors, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("entries", "groups"), [(1, [[0], [1], [2], [3]]), (340, [[0, 1], [2], [3]]), (2**20, [[0, 1, 2, 3]])]
)
def test_files_are_read_some_batches_at_a_time(entries, groups, tmp_path, monkeypatch):
    """Batches of 16, 9, 16 and 16 samples and two layers have 256, 81, 256 and 256 entries."""
    banks = [make_bank(variant, sizes=(16, 9, 16, 16), epoch=variant, step=variant) for variant in range(3)]
    whole, ranks = similarity_to_last(banks), rank_history(banks)
    for bank in banks:
        bank.save(tmp_path / f"epoch={bank.epoch:03d}-step={bank.step:06d}.safetensors")
    files, opened = sorted(tmp_path.iterdir()), []
    load = GramBank.load

    def record(path, *, batches):
        opened.append([path, list(batches)])
        return load(path, batches=batches)

    monkeypatch.setattr("lightning_cka.compare.bank_series._MAX_ENTRIES", entries)
    monkeypatch.setattr(GramBank, "load", record)
    found = similarity_to_last(files)
    assert torch.equal(found.values, whole.values)
    assert torch.equal(found.standard_error, whole.standard_error)
    assert [each for each in opened if each[1]] == [[path, group] for group in groups for path in (files[-1], *files)]
    del opened[:]
    assert torch.equal(rank_history(files).rank, ranks.rank)
    assert [each for each in opened if each[1]] == [[path, group] for path in files for group in groups]


def test_banks_that_do_not_belong_together_raise():
    with pytest.raises(ValueError, match="different probe sets"):
        similarity_to_last([make_bank(1), make_bank(2, sizes=(16, 9))])
    with pytest.raises(ValueError, match="different layers"):
        similarity_to_last([make_bank(1), make_bank(2, layers=("a", "x"))])


def test_a_layer_without_variance_is_undefined_and_has_not_converged():
    moments = moving()
    for each in moments:
        for batch in each:
            batch[1] = np.zeros_like(batch[1])
    found = similarity_to_last(banks_of(moments))
    assert found.values[1].isnan().all()
    assert found.converged_since(0.5, 0.95)["stays"] is None
