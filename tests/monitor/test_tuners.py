"""Lightning's tuners run a few steps before training: they leave no results behind."""

import pytest
import torch
from conftest import Net, dataset, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.tuner import Tuner
from lightning_cka import CKAMonitor
from torch.utils.data import DataLoader
from training import MARKS, epochs_and_steps, needs_lightning_26, same_results, same_weights

pytestmark = MARKS


class Tunable(Net):
    """A network with its own loaders, learning rate and batch size, which tuners can change."""

    def __init__(self):
        super().__init__()
        self.lr, self.batch_size = 0.1, 16

    def train_dataloader(self):
        return DataLoader(dataset(seed=1), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(dataset(seed=2), batch_size=16)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def find_learning_rate(fitted, model):
    Tuner(fitted).lr_find(model, num_training=20, update_attr=True)


def find_batch_size(fitted, model):
    Tuner(fitted).scale_batch_size(model, max_trials=2, init_val=16, steps_per_trial=2)


@pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval")
@pytest.mark.parametrize("find", [find_learning_rate, find_batch_size])
def test_tuners_leave_no_results_behind(find, tmp_path):
    def fit(*callbacks, tune):
        seed_everything(3, workers=True, verbose=False)
        model = Tunable()
        fitted = trainer(*callbacks)
        if tune:
            find(fitted, model)
            if callbacks:
                assert callbacks[0].results == {}
                assert not (tmp_path / "cka").exists()
        else:
            model.lr, model.batch_size = settings
        seed_everything(4, workers=True, verbose=False)
        fitted.fit(model)
        return model

    monitor, untuned = CKAMonitor(["initial", "previous"]), CKAMonitor(["initial", "previous"], dirpath="other")
    watched = fit(monitor, tune=True)
    settings = watched.lr, watched.batch_size
    assert settings != (0.1, 16)
    plain, again = fit(tune=True), fit(untuned, tune=False)
    assert same_weights(plain, watched)
    assert same_weights(again, watched)
    assert same_results(monitor, untuned)
    assert monitor.results["initial"][0].reference_name == "initial"
    assert not list((tmp_path / "cka").glob("earlier-*"))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: LearningRateFinder(num_training_steps=20), marks=needs_lightning_26),
        lambda: BatchSizeFinder(init_val=16, max_trials=1),
    ],
)
def test_tuners_as_callbacks(make, tmp_path):
    def fit(*callbacks):
        seed_everything(3, workers=True, verbose=False)
        model = Tunable()
        trainer(*callbacks).fit(model)
        return model

    monitor = CKAMonitor(["initial", "previous"])
    watched = fit(monitor, make())
    plain = fit(make())
    assert same_weights(plain, watched)
    assert [r.epoch for r in monitor.results["initial"]] == [0, 1]
    assert monitor.results["initial"][0].reference_name == "initial"
    assert not list((tmp_path / "cka").glob("earlier-*"))


@needs_lightning_26
def test_a_tuner_does_not_restore_an_earlier_run_of_the_same_monitor():
    """The tuner saves a checkpoint with the state of callbacks before training, and loads it afterwards."""
    monitor = CKAMonitor(["initial", "previous"])
    for epochs in (1, 2):
        trainer(monitor, LearningRateFinder(num_training_steps=20), max_epochs=epochs).fit(Tunable())
    assert epochs_and_steps(monitor) == epochs_and_steps(monitor, "previous") == [(0, 7), (1, 15)]
    assert torch.equal(monitor.results["initial"][0].matrix, monitor.results["previous"][0].matrix)
