"""Banks of different probe sets."""

from dataclasses import replace

import pytest
import torch
from gram_banks import ignore_few_samples, make_bank
from lightning_cka import compare_banks
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch

pytestmark = ignore_few_samples


def test_banks_of_different_probe_sets_raise_unless_strict_is_false():
    a = make_bank()
    assert a.probe_differences(make_bank(2)) == []
    other = make_bank(2, seed=5)
    with pytest.raises(
        ValueError, match=r"they differ in the seed \(0 and 5\). strict=False \(--no-strict\) compares batches"
    ):
        compare_banks(a, other)
    shown = other.batches[1]
    other.add(replace(shown, samples=(7, *shown.samples[1:]), fingerprint="changed"))
    other.add(BankBatch(2, pack_features([torch.randn(12, 3), torch.randn(12, 4)]), "hash2", tuple(range(12))))
    differences = (
        r"the seed \(0 and 5\); the samples of 2 of 3 batches \(dataset index and dataset index\); "
        "the inputs in 1 of 3 batches"
    )
    with pytest.raises(ValueError, match=differences):
        compare_banks(a, other)
    with pytest.warns(
        UserWarning,
        match=f"{differences}. 32 samples are compared as if they were the same in both banks; otherwise",
    ):
        loose = compare_banks(a, other, strict=False)
    assert loose.num_samples == 32
    same = make_bank(2)
    del same.batches[2], same.probe[2]
    with pytest.warns(UserWarning, match=r"the number of batches \(3 and 2, 1 of them not in both\)"):
        torch.testing.assert_close(loose.matrix, compare_banks(a, same, strict=False).matrix, rtol=0, atol=0)
    del same.batches[0], same.probe[0], same.batches[1], same.probe[1]
    with pytest.raises(ValueError, match="No batch has the same number of samples in both"):
        compare_banks(a, same, strict=False)
