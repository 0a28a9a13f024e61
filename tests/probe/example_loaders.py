"""Datasets for the tests of probe sets, and functions that read a probe set."""

import os
import random
import zipfile

import numpy as np
import torch
from lightning_cka.runtime.rng import isolated_rng
from torch.utils.data import Dataset, IterableDataset, TensorDataset, get_worker_info


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


class InWorkers(Dataset):
    """Reads a file through a handle that it opens at first use. Rows are (index, read, is_main, is_foreign)."""

    def __init__(self, path, main):
        self.path, self.main, self.file, self.owner, self.greeting = path, main, None, None, None

    def __len__(self):
        return 64

    def _open(self):
        return self.path.open("rb", buffering=0)

    def _read(self, index):
        self.file.seek(4 * index)
        return np.frombuffer(self.file.read(4), np.float32)[0]

    def __getitem__(self, index):
        if self.file is None:
            self.file, self.owner = self._open(), os.getpid()
        is_own = get_worker_info() is None or get_worker_info().dataset is self
        flags = [os.getpid() == self.main, self.owner != os.getpid(), not is_own, self.greeting is None]
        return torch.tensor([float(index), float(self._read(index)), *map(float, flags)])


class InZip(InWorkers):
    def _open(self):
        return zipfile.ZipFile(self.path)

    def _read(self, index):
        return np.frombuffer(self.file.read(str(index)), np.float32)[0]


class BatchesInWorkers(InWorkers):
    """Makes whole batches."""

    def __getitem__(self, indices):
        return torch.stack([super(BatchesInWorkers, self).__getitem__(index) for index in indices])


class StreamInWorkers(IterableDataset):
    """Deals its rows out to workers, and needs one."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        info = get_worker_info()
        assert info is not None, "no worker"
        self.rows.greeting = getattr(self, "greeting", None)
        info_dataset, info = info.dataset, (info.id, info.num_workers)
        assert info_dataset is self
        for index in range(info[0], len(self.rows), info[1]):
            row = self.rows[index]
            row[4] = 0
            yield row


class BatchStreamInWorkers(StreamInWorkers):
    def __iter__(self):
        rows = list(super().__iter__())
        return iter([torch.stack(rows[i : i + 8]) for i in range(0, len(rows), 8)])


def greet(_worker_id):
    get_worker_info().dataset.greeting = "hello"


def file_of_64(folder, *, zipped):
    values = np.arange(64, dtype=np.float32)
    path = folder / "data"
    if not zipped:
        values.tofile(path)
        return path
    with zipfile.ZipFile(path, "w") as archive:
        for i, value in enumerate(values):
            archive.writestr(str(i), value.tobytes())
    return path
