"""Train a small network in the loops that people run, and compare two runs."""

from itertools import cycle, islice

import lightning as L
import pytest
import torch
from conftest import Net, dataset, loaders, trainer
from lightning.pytorch import seed_everything
from torch.utils.data import DataLoader, IterableDataset

try:  # Lightning 2.6 has these.
    from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
except ImportError:
    EMAWeightAveraging = WeightAveraging = None


MARKS = [
    # Networks with three outputs and small probe sets are flagged, as they should be.
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    # Lightning warns about the Trainers that are tried here.
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`"),
    pytest.mark.filterwarnings("ignore:Your `val_dataloader`'s sampler has shuffling enabled"),
    pytest.mark.filterwarnings("ignore:You are trying to `self.log..`"),
    pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor"),
    pytest.mark.filterwarnings("ignore:Found `dataloader_iter` argument in the `validation_step`"),
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),
    pytest.mark.usefixtures("_without_figures"),
]
"""The marks of every test file that trains with `run`."""

# Lightning 2.5 has no WeightAveraging and no validation by time, and its LearningRateFinder skips an epoch.
needs_lightning_26 = pytest.mark.skipif(EMAWeightAveraging is None, reason="Lightning before 2.6")


STEPS = {"max_epochs": -1, "max_steps": 12, "val_check_interval": 5, "check_val_every_n_epoch": None}


class NoValidation(Net):
    validation_step = L.LightningModule.validation_step


class NoValidationLoaders(Net):
    def val_dataloader(self):
        return []


class Endless(IterableDataset):
    """An iterable dataset without a length; without an end, too, unless `length` is given."""

    def __init__(self, length=None):
        self.length = length

    def __iter__(self):
        return islice(cycle(dataset(seed=1)), self.length)


def endless_loader(batch_size=16):
    return DataLoader(Endless(), batch_size=batch_size)


def run(*callbacks, model=Net, train=None, validation="default", **kwargs):
    """Train from the same initial state each time, and return the network and its Trainer.

    By default, an epoch has 8 training batches and 8 validation batches, of 16 samples each.
    """
    seed_everything(3, workers=True, verbose=False)
    network, (default_train, default_validation) = model(), loaders()
    if validation == "default":
        validation = None if model is NoValidationLoaders else default_validation
    fitted = trainer(*callbacks, **kwargs)
    fitted.fit(network, default_train if train is None else train, validation)
    return network, fitted


def epochs_and_steps(monitor, name="initial"):
    """Return the (epoch, step) of each result of a reference."""
    return [(result.epoch, result.step) for result in monitor.results.get(name, [])]


def same_weights(one, other):
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def same_results(one, other):
    """Whether two monitors have equal results; at least one result each."""
    assert one.results.keys() == other.results.keys()
    for name, results in one.results.items():
        assert epochs_and_steps(one, name) == epochs_and_steps(other, name)
        assert all(torch.equal(a.matrix, b.matrix) for a, b in zip(results, other.results[name], strict=True))
    return len(one.results) > 0
