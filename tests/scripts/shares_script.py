"""Run by test_joined_probe.py: train in two processes on loaders whose samplers fix their share when they are made.

The first argument is a JSON list of kinds. Rank 0 writes the results to ``out.json``, or the error of a kind.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import lightning as L
import torch
from conftest import blank_figures, dataset
from ddp_script import Deterministic
from lightning_cka import CKAMonitor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, TensorDataset

SAMPLES = 72


class FixedShare(Sampler):
    """Yields every k-th index, from this process's rank on, and shows neither number."""

    def __init__(self, length, rank, world_size):
        self.share = list(range(length))[rank::world_size]

    def __iter__(self):
        return iter(self.share)

    def __len__(self):
        return len(self.share)


class NamesItsRank(FixedShare):
    """Has the attributes of a `DistributedSampler`, which change nothing after it is made."""

    def __init__(self, length, rank, world_size):
        super().__init__(length, rank, world_size)
        self.rank, self.num_replicas = rank, world_size


class Shuffles(Sampler):
    """Yields all indices, in an order of each process."""

    def __init__(self, length, rank, world_size):
        generator = torch.Generator().manual_seed(rank)
        self.order = torch.randperm(length, generator=generator).tolist()

    def __iter__(self):
        return iter(self.order)

    def __len__(self):
        return len(self.order)


class Texts(Dataset):
    """Is indexed with texts."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, key):
        return self.data[int(key[1:])]


class TextShare(FixedShare):
    def __init__(self, length, rank, world_size):
        super().__init__(length, rank, world_size)
        self.share = [f"k{i}" for i in self.share]


SAMPLERS = {"fixed": FixedShare, "named": NamesItsRank, "shuffles": Shuffles, "texts": TextShare, "batches": FixedShare}


def loader_of(kind, data, rank, world_size):
    sampler = SAMPLERS[kind](len(data), rank, world_size)
    if kind == "batches":
        return DataLoader(data, batch_sampler=BatchSampler(sampler, 6, drop_last=False))
    return DataLoader(Texts(data) if kind == "texts" else data, batch_size=6, sampler=sampler)


def run(kind, devices):
    kind, _, own = kind.partition(" ")
    L.seed_everything(0, workers=True, verbose=False)
    x, y = dataset(SAMPLES).tensors
    data = TensorDataset(x.double(), y)
    loader = loader_of(kind, data, int(os.environ.get("LOCAL_RANK", 0)), devices)
    monitor = CKAMonitor(["initial", "self"], dirpath=f"cka {kind}{own}", dataloader=loader if own else None)
    trainer = L.Trainer(
        max_epochs=1,
        limit_train_batches=1,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        use_distributed_sampler=False,
        callbacks=[monitor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    plain = DataLoader(data, batch_size=8)
    trainer.fit(Deterministic().double(), plain, plain if own else loader)
    result = monitor.results["initial"][0]
    return {"matrix": result.matrix.tolist(), "samples": result.num_samples, "batches": result.num_batches}


def main(kinds, devices):
    with blank_figures(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {kind: run(kind, devices) for kind in kinds}


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = main(json.loads(sys.argv[1]), 2)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        Path("out.json").write_text(json.dumps(found))
