"""Validation loaders of all kinds: several, empty, reloaded, with workers."""

import math

import lightning as L
import pytest
import torch
from conftest import Net, dataset, loaders, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.demos.boring_classes import BoringModel, ManualOptimBoringModel, RandomDataset
from lightning.pytorch.utilities import CombinedLoader
from lightning_cka import CKAMonitor
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from training import MARKS, epochs_and_steps, run, same_results, same_weights

pytestmark = MARKS


class SeveralLoaders(Net):
    """A network that validates on several loaders, in whichever way they are combined."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        for part in batch.values() if isinstance(batch, dict) else [batch]:
            if part is not None:
                self.log("val_loss", nn.functional.cross_entropy(self(part[0]), part[1]), batch_size=16)


@pytest.mark.parametrize(
    ("mode", "check_val_every_n_epoch"),
    [
        ("list", 1),
        ("dict", 2),
        ("sequential", 1),
        ("min_size", 1),
        ("min_size", 2),
        ("max_size", 1),
        ("max_size_cycle", 1),
    ],
)
def test_several_validation_loaders(mode, check_val_every_n_epoch):
    """The probe set is drawn from the loader dataloader_idx=, even before Lightning has loaded it."""

    def validation():
        parts = {
            "a": DataLoader(dataset(64, seed=4), batch_size=16),
            "b": DataLoader(dataset(128, seed=2), batch_size=16),
        }
        return {"list": [*parts.values()], "dict": parts}.get(mode) or CombinedLoader(parts, mode)

    settings = {"check_val_every_n_epoch": check_val_every_n_epoch, "num_sanity_val_steps": 0, "max_epochs": 2}
    first, second, alone = CKAMonitor(), CKAMonitor(dataloader_idx=1, log_key_prefix="b/"), CKAMonitor()
    watched, fitted = run(first, second, model=SeveralLoaders, validation=validation(), **settings)
    run(alone, **settings)
    if mode == "min_size":
        assert same_weights(run(model=SeveralLoaders, validation=validation(), **settings)[0], watched)
    assert [r.num_samples for r in first.results["initial"]] == [64] * (2 // check_val_every_n_epoch)
    # Only the first results are equal: each iteration of a loader draws a random number, and here are two loaders.
    assert torch.equal(second.results["initial"][0].matrix, alone.results["initial"][0].matrix)
    assert not torch.equal(first.results["initial"][0].matrix, alone.results["initial"][0].matrix)
    assert {"cka/initial/mean", "b/initial/mean"} <= set(fitted.callback_metrics)


def test_a_validation_step_that_takes_the_dataloader_iter():
    class TakesIterator(Net):
        def validation_step(self, dataloader_iter):
            batch, *_ = next(dataloader_iter)
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]), batch_size=16)

    monitor, plain = CKAMonitor(), CKAMonitor()
    run(monitor, model=TakesIterator)
    run(plain)
    assert same_results(monitor, plain)


class ChangingData(L.LightningDataModule):
    """Data whose validation samples change at each call of val_dataloader, if `changes` is 1."""

    def __init__(self, changes):
        super().__init__()
        self.changes, self.calls, self.batch_size = changes, 0, 16

    def train_dataloader(self):
        return DataLoader(dataset(seed=1), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        self.calls += 1
        return DataLoader(dataset(seed=2 + self.changes * self.calls), batch_size=self.batch_size)


@pytest.mark.parametrize("changes", [0, 1])
def test_reloading_the_datamodule_in_each_epoch_keeps_the_probe_set(changes):
    def fit(*callbacks):
        seed_everything(3, workers=True, verbose=False)
        model, data = Net(), ChangingData(changes)
        trainer(*callbacks, max_epochs=3, reload_dataloaders_every_n_epochs=1).fit(model, datamodule=data)
        return model, data.calls

    monitor = CKAMonitor(["initial", "previous", "self"])
    watched, calls = fit(monitor)
    plain, plain_calls = fit()
    assert same_weights(plain, watched)
    assert calls == plain_calls > 2
    assert [result.num_samples for result in monitor.results["previous"]] == [128] * 3
    assert all(math.isfinite(result.mean()) for result in monitor.results["previous"])


def test_an_empty_validation_loader():
    """There is no last batch to compare after, but there is a validation epoch to log in."""

    class Empty(IterableDataset):
        def __iter__(self):
            return iter(())

    monitor = CKAMonitor(dataloader=loaders()[1])
    run(monitor, validation=DataLoader(Empty(), batch_size=16))
    assert epochs_and_steps(monitor) == [(0, 7), (1, 15)]


def test_a_validation_loader_with_persistent_workers_can_be_the_dataloader_of_the_probe():
    """The probe set is loaded after the last validation batch: before it, this would restart the loader."""

    def validation():
        return DataLoader(dataset(seed=2), batch_size=16, num_workers=1, persistent_workers=True)

    class CountBatches(Net):
        batches = 0

        def validation_step(self, batch, batch_idx):
            self.batches += 1

    loader = validation()
    monitor = CKAMonitor(dataloader=loader)
    watched, _ = run(monitor, model=CountBatches, validation=loader, num_sanity_val_steps=0)
    assert watched.batches == 16
    assert [r.num_samples for r in monitor.results["initial"]] == [128, 128]


class Segments(BoringModel):
    """Lightning's own model, which has batches of 1, with the loaders of other small batch sizes."""

    batch_size = 3

    def train_dataloader(self):
        return DataLoader(RandomDataset(32, 64), self.batch_size)

    val_dataloader = train_dataloader


@pytest.mark.parametrize("model", [BoringModel, ManualOptimBoringModel, Segments])
def test_batches_of_1_to_3_samples_of_the_boring_model(model, tmp_path):
    monitor = CKAMonitor(["initial", "previous"])
    fitted, _ = run_boring(model, monitor)
    plain, _ = run_boring(model)
    assert same_weights(fitted, plain)
    results = monitor.results["initial"]
    blocks = 11 if model is Segments else 8  # Ten of two forward passes of 3, and one of 4 samples.
    found = [(result.epoch, result.num_samples, result.num_batches) for result in results]
    assert found == [(0, 64, blocks), (1, 64, blocks)]
    assert all(result.matrix.isfinite().all() for result in results)


def run_boring(model, *callbacks):
    seed_everything(3, verbose=False)
    network = model()
    fitted = trainer(*callbacks, limit_train_batches=4, limit_val_batches=4)
    fitted.fit(network)
    return network, fitted
