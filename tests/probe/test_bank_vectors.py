"""Vectors of measures are computed once for a bank that is compared with again."""

import pytest
import torch
from gram_banks import make_bank
from lightning_cka import RSA, MutualKNN, Ridge
from lightning_cka.hsic.measure import CKA
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.bank_vectors import BankVectors

MEASURES = (MutualKNN(), RSA(), Ridge())


@pytest.mark.parametrize("measure", MEASURES)
def test_vectors_are_kept_from_the_call_of_keep_on(measure):
    bank = make_bank()
    grams = bank.batches[0].grams
    first, second = (bank.vectors.of(measure, 0, grams) for _ in range(2))
    assert first.values is not second.values
    bank.vectors.keep()
    made, kept = (bank.vectors.of(measure, 0, grams) for _ in range(2))
    assert made.values is kept.values
    assert torch.equal(kept.values, first.values)
    assert kept[2:] == first[2:]
    bank.vectors.keep()  # Again, which forgets nothing.
    assert bank.vectors.of(measure, 0, grams).values is kept.values


def test_other_measures_and_batches_are_apart():
    bank = make_bank(sizes=(16, 16))
    bank.vectors.keep()
    grams = [bank.batches[index].grams for index in range(2)]
    wide, narrow = (bank.vectors.of(MutualKNN(part), 0, grams[0]) for part in (0.1, 0.4))
    assert wide.chance != narrow.chance
    assert not torch.equal(bank.vectors.of(RSA(), 0, grams[0]).values, bank.vectors.of(RSA(), 1, grams[1]).values)


def test_a_replaced_batch_is_forgotten():
    bank, other = make_bank(0), make_bank(1)
    bank.vectors.keep()
    before = [bank.vectors.of(RSA(), index, bank.batches[index].grams).values for index in range(2)]
    batch = bank.batches[0]
    bank.add(BankBatch(0, other.batches[0].grams, batch.fingerprint, batch.samples))
    after = [bank.vectors.of(RSA(), index, bank.batches[index].grams).values for index in range(2)]
    assert not torch.equal(before[0], after[0])
    assert before[1] is after[1]


def test_memory():
    bank = make_bank(sizes=(16,))
    bank.vectors.keep()
    values = {each.key: bank.vectors.of(each, 0, bank.batches[0].grams).values for each in MEASURES}
    sizes = {key: value.element_size() * value.numel() for key, value in values.items()}
    assert sizes == {"mutual_knn": 2 * 16 * 16, "rsa": 2 * 4 * 120, "ridge": 2 * 4 * 16 * 8}


def test_vectors_of_cka_are_not_kept():
    vectors = BankVectors()
    vectors.keep()
    grams = make_bank().batches[0].grams
    assert vectors.of(CKA(), 0, grams).values is grams.halves
    vectors.of(CKA("distance"), 0, CKA("distance").grams(grams))
    assert vectors._kept == {}
