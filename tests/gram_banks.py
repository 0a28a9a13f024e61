"""Gram banks of random or given features, without a model."""

from __future__ import annotations

import torch
from lightning_cka import GramBank
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch

SIZES = (16, 16, 9)


def make_bank(variant=0, layers=("a", "b.c"), noise=0.5, dtype=torch.float32, **options):
    """Two layers on three batches; other variants are variant 0 with noise."""
    base, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(variant)
    bank = GramBank(layers, "Net", "dataset index", **options)
    for index, n in enumerate(SIZES):
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
