"""Gram banks of random or given features, without a model."""

from __future__ import annotations

import pytest
import torch
from lightning_cka import GramBank
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch

SIZES = (16, 16, 9)

# The banks have few samples, so comparing them warns of large standard errors and of layers that no longer match.
ignore_few_samples = pytest.mark.filterwarnings("ignore:CKA.*layers whose CKA (has a standard error|with ):UserWarning")


def make_bank(variant=0, layers=("a", "b.c"), noise=0.5, dtype=torch.float32, sizes=SIZES, **options):
    """Two layers on three batches or those of ``sizes``; other variants are variant 0 with noise."""
    base, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(variant)
    bank = GramBank(layers, "Net", "dataset index", **options)
    for index, n in enumerate(sizes):
        features = [
            (torch.randn(n, d, generator=base) + noise * bool(variant) * torch.randn(n, d, generator=own) + 3).to(dtype)
            for d in (5, 40)
        ]
        samples = tuple(range(100 * index, 100 * index + n))
        bank.add(BankBatch(index, pack_features(features), f"hash{index}", samples))
    return bank


def bank_of_features(batches, layers=("a",)):
    """The bank of a model whose layers have these features on each batch."""
    bank, start = GramBank(layers, "model", "dataset index"), 0
    for index, features in enumerate(batches):
        samples = tuple(range(start, start + len(features[0])))
        start += len(samples)
        bank.add(BankBatch(index, pack_features(features), str(index), samples))
    return bank


def assert_same(a, b):
    assert a.probe_differences(b) == []
    for one, other in zip(a, b, strict=True):
        assert all(map(torch.equal, one.grams, other.grams))
