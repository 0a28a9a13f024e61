"""The median squared distances of a bank: a mean over the batches of all processes."""

import json

import naive
import numpy as np
import pytest
import torch
from forked_scripts import run_two_processes
from gram_banks import bank_of_features
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch
from torch import distributed as dist

CPU = torch.device("cpu")


def features(count=5, seed=0):
    """Two layers on batches of several sizes. Batch 1 is spread more widely."""
    generator = torch.Generator().manual_seed(seed)
    batches = [
        [torch.randn(n, d, generator=generator, dtype=torch.float64) for d in (3, 20)]
        for n in (16, 17, 32, 8, 4)[:count]
    ]
    return [[5 * x for x in batch] if index == 1 else batch for index, batch in enumerate(batches)]


def naive_medians(batches):
    return np.mean([[np.median(naive.squared_distances(x)) for x in batch] for batch in batches], axis=0)


def test_it_is_the_mean_over_batches_of_their_medians():
    batches = features()
    medians = bank_of_features(batches, ("a", "b")).bandwidths(CPU, distributed=False).medians
    assert medians.dtype == torch.float64
    np.testing.assert_allclose(medians, naive_medians(batches), rtol=1e-12)
    assert abs(naive_medians(batches) / naive_medians(batches[:1]) - 1).min() > 0.5  # The first batch alone.


def test_it_follows_changes_of_the_bank():
    batches = features()
    bank = bank_of_features(batches[:4], ("a", "b"))
    before = bank.bandwidths(CPU, distributed=False).medians
    for index in (4, 1):  # A new batch, and one that replaces another.
        grams = pack_features(batches[0])
        bank.add_with_medians(BankBatch(index, grams, str(index), tuple(range(16))))
    medians = bank.bandwidths(CPU, distributed=False).medians
    expected = naive_medians([batches[0], batches[0], batches[2], batches[3], batches[0]])
    np.testing.assert_allclose(medians, expected, rtol=1e-12)
    assert not torch.equal(before, medians)


def test_batches_with_nan_are_left_out_of_their_layer():
    batches = features()
    batches[1][0][3] = torch.nan
    medians = bank_of_features(batches, ("a", "b")).bandwidths(CPU, distributed=False).medians
    expected = [naive_medians(batches[:1] + batches[2:])[0], naive_medians(batches)[1]]
    np.testing.assert_allclose(medians, expected, rtol=1e-12)
    for batch in batches:
        batch[0][0] = torch.inf
    assert bank_of_features(batches, ("a", "b")).bandwidths(CPU, distributed=False).medians.isnan().tolist() == [
        True,
        False,
    ]


def part_of_bank(rank, batches):
    """The batches that one of two processes has shown its model."""
    bank = bank_of_features(batches, ("a", "b"))
    part = bank.empty()
    for batch in bank:
        if batch.index % 2 == rank:
            part.add(batch)
    return part


def work(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    with_nan = features()
    with_nan[3][1][2] = torch.nan  # In a batch of the second process.
    medians = [
        part_of_bank(rank, batches).bandwidths(CPU, distributed=True).medians.tolist()
        for batches in (features(), features(1), with_nan)
    ]
    (folder / f"{rank}.json").write_text(json.dumps(medians))
    dist.destroy_process_group()


def test_two_processes_agree_with_one(tmp_path):
    """With five batches, the second process has fewer. With one batch, it has none."""
    run_two_processes(work, tmp_path)
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one == other
    with_nan = features()
    with_nan[3][1][2] = torch.nan
    for medians, batches in zip(one, (features(), features(1), with_nan), strict=True):
        alone = bank_of_features(batches, ("a", "b")).bandwidths(CPU, distributed=False).medians
        assert medians == pytest.approx(alone.tolist(), rel=1e-12)
