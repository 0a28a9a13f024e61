"""Validation data of every kind, and errors if there are none."""

import numpy as np
import pytest
import torch
from conftest import Net, dataset, loaders, trainer
from fitting import NoValidation
from lightning_cka import CKAMonitor, GramBank
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(dataset(40))


def test_iterable_validation_data():
    monitor = CKAMonitor()
    with pytest.warns(UserWarning, match="first samples of the iterable dataset Stream"):
        trainer(monitor, max_epochs=1).fit(Net(), loaders()[0], DataLoader(Stream(), batch_size=8))
    assert monitor.results["initial"][0].num_samples == 40


@pytest.mark.parametrize("indices", [np.arange(100), torch.arange(100), list(range(100))])
def test_indices_of_arrays_and_tensors(indices, tmp_path):
    sampler = SubsetRandomSampler(indices)
    monitor = CKAMonitor(save_banks=True, dirpath=tmp_path)
    used = trainer(monitor, max_epochs=1)
    used.fit(Net(), loaders()[0], DataLoader(dataset(), batch_size=16, sampler=sampler))
    bank = GramBank.load(tmp_path / "banks" / "initial.safetensors")
    assert sorted(i for inputs in bank.probe.values() for i in inputs.samples)[0] == 0
    assert monitor.results["initial"][0].num_samples == 100


def test_no_validation_data():
    with pytest.raises(ValueError, match=r"no validation loop .*pass dataloader="):
        trainer(CKAMonitor()).fit(NoValidation(), loaders()[0])
    with pytest.raises(ValueError, match=r"limit_val_batches=0.*pass dataloader="):
        trainer(CKAMonitor(), limit_val_batches=0).fit(Net(), *loaders())


def test_too_few_validation_samples():
    with pytest.raises(ValueError, match="probe set has 3 samples"):
        trainer(CKAMonitor()).fit(Net(), loaders()[0], DataLoader(dataset(3), batch_size=3))
    monitor = CKAMonitor()
    trainer(monitor).fit(Net(), loaders()[0], DataLoader(dataset(30), batch_size=2))
    assert monitor.results["initial"][0].num_samples >= 28  # The probe set makes its own, larger batches.
