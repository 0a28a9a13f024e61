"""Each pass yields the same samples in the same batches, on any number of processes."""

import random

import numpy as np
import pytest
import torch
from example_loaders import Augmented, values
from lightning_cka.probe.seeded_sampling import draw_probe_set
from lightning_cka.runtime.rng import isolated_rng
from torch.utils.data import DataLoader


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_split_the_batches_of_one_process(world_size):
    probe = draw_probe_set(DataLoader(Augmented(), batch_size=16))
    shares = [pair for rank in range(world_size) for pair in values(probe, rank, world_size)]
    assert sorted(shares) == values(probe)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_random_transforms_are_the_same_at_each_pass_and_in_each_worker(num_workers):
    loader = DataLoader(Augmented(), batch_size=16, num_workers=num_workers)
    with isolated_rng(0):
        alone = [torch.stack([b.data for b in draw_probe_set(DataLoader(Augmented(), batch_size=16)).batches()])]
    probe = draw_probe_set(loader)
    for _ in range(2):
        torch.rand(3), random.random(), np.random.rand()
        with isolated_rng(0):
            assert torch.equal(torch.stack([batch.data for batch in probe.batches()]), alone[0])
