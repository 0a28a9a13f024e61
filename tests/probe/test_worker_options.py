"""Where the user's loader has workers, only they read the dataset."""

import os

import pytest
import torch
from conftest import Net, trainer
from example_loaders import (
    BatchesInWorkers,
    BatchStreamInWorkers,
    InWorkers,
    InZip,
    StreamInWorkers,
    file_of_64,
    greet,
)
from lightning_cka import CKAMonitor, GramBank, compare_models
from torch import nn
from torch.utils.data import BatchSampler, DataLoader

pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in ("CKA", "the batches of the dataloader")]

OPTIONS = {"num_workers": 2, "worker_init_fn": greet}


def check_rows(rows):
    assert torch.equal(rows[:, 0], rows[:, 1])  # The right row was read,
    assert not rows[:, 2].any()  # not in the main process,
    assert not rows[:, 3].any()  # through a handle of the same process,
    assert not rows[:, 4].any()  # where get_worker_info has the user's dataset,
    assert not rows[:, 5].any()  # to which worker_init_fn has written.


def loaders(path, kind):
    def rows():
        return kind(path, os.getpid())

    def stream(cls):
        return cls(rows())

    sampler = BatchSampler(range(64), 8, drop_last=False)
    return {
        "map-style": lambda **k: DataLoader(rows(), 8, **OPTIONS, **k),
        "persistent": lambda **k: DataLoader(rows(), 8, persistent_workers=True, prefetch_factor=3, **OPTIONS, **k),
        "whole batches": lambda **k: DataLoader(
            BatchesInWorkers(path, os.getpid()), batch_size=None, sampler=sampler, **OPTIONS, **k
        ),
        "stream": lambda **k: DataLoader(stream(StreamInWorkers), 8, **OPTIONS, **k),
        "stream of batches": lambda **k: DataLoader(stream(BatchStreamInWorkers), batch_size=None, **OPTIONS, **k),
    }


class Checked(Net):
    """Checks each row that it gets, also those of the probe set."""

    def forward(self, x):
        check_rows(x)
        return self.net(torch.cat([x, x.new_ones(len(x), 2)], 1))

    def training_step(self, batch, _):
        return self(batch).square().mean()

    def validation_step(self, batch, _):
        check_rows(batch)


KINDS = ["map-style", "persistent", "whole batches", "stream", "stream of batches"]


@pytest.mark.filterwarnings("ignore:the probe set consists of the first samples")
@pytest.mark.parametrize("kind", KINDS)
def test_training_and_probe_set_read_the_right_rows(kind, tmp_path):
    make = loaders(file_of_64(tmp_path, zipped=False), InWorkers)[kind]
    loader = make()
    monitor = CKAMonitor(["initial", Checked()], dirpath=tmp_path / "cka", num_samples=32)
    trainer(monitor).fit(Checked(), loader, loader)
    assert [result.num_samples for result in monitor.results["initial"]] == [32, 32]


def test_zip_files(tmp_path):
    loader = loaders(file_of_64(tmp_path, zipped=True), InZip)["map-style"]()
    monitor = CKAMonitor(dirpath=tmp_path / "cka", num_samples=32)
    trainer(monitor).fit(Checked(), loader, loader)
    assert [result.num_samples for result in monitor.results["initial"]] == [32, 32]


@pytest.mark.parametrize("kind", KINDS)
def test_loaders_of_ones_own(kind, tmp_path):
    loader = loaders(file_of_64(tmp_path, zipped=False), InWorkers)[kind]()
    model = Checked()
    assert compare_models(model, Checked(), loader, "net.0", progress_bar=False).num_samples == 64
    bank = GramBank.from_model(model, loader, "net.0", progress_bar=False)
    if bank.sample_kind == "dataset index":
        like = GramBank.from_model(model, loader, "net.0", like=bank, progress_bar=False)
        assert bank.probe_differences(like) == []


def test_workers_are_started_once_for_all_dry_runs(tmp_path):
    starts = tmp_path / "starts"

    def count(_worker_id):
        with starts.open("a") as file:
            file.write("x")

    loader = DataLoader(torch.randn(64, 8), 8, num_workers=1, worker_init_fn=count)
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    compare_models(net, nn.Sequential(nn.Linear(8, 8)), loader, progress_bar=False)
    assert starts.read_text() == "xxx"  # Two dry runs, and a pass of each model.
