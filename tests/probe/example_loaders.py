"""Datasets for the tests of probe sets, and functions that read a probe set."""

import random

import numpy as np
import torch
from lightning_cka.runtime.rng import isolated_rng
from torch.utils.data import Dataset, IterableDataset, TensorDataset


def numbers(n):
    return TensorDataset(torch.arange(n, dtype=torch.float32)[:, None])


def sizes(probe):
    return [batch.num_samples for batch in probe.batches()]


def values(probe, *args):
    with isolated_rng(probe.seed):
        return [(batch.index, batch.data[0].flatten().tolist()) for batch in probe.batches(*args)]


class Augmented(Dataset):
    """Random transforms that draw from the generators of torch, Python and NumPy."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.tensor([index, torch.rand(()).item(), random.random(), np.random.rand()])


class Stream(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(torch.arange(self.n, dtype=torch.float32)[:, None])
