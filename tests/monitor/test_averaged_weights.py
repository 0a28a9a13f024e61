"""Weights that are averaged over training: the monitor compares the weights that are validated."""

import copy

import pytest
import torch
from conftest import Net, dataset, loaders, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, StochasticWeightAveraging
from lightning_cka import CKAMonitor, compare_models
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from training import MARKS, EMAWeightAveraging, WeightAveraging, needs_lightning_26, run, same_results, same_weights

pytestmark = MARKS


class RawEMA(Callback):
    """An exponential moving average as many projects write it: it swaps weights around each validation."""

    def on_fit_start(self, trainer, module):
        self.average = copy.deepcopy(module.state_dict())

    def on_train_batch_end(self, trainer, module, *args):
        for name, value in module.state_dict().items():
            self.average[name] = (0.9 * self.average[name] + 0.1 * value).to(value.dtype)

    def swap(self, module):
        own = copy.deepcopy(module.state_dict())
        module.load_state_dict(self.average)
        self.average = own

    def on_validation_start(self, trainer, module):
        self.swap(module)

    def on_validation_end(self, trainer, module):
        self.swap(module)


class SwapsAtEpochs(RawEMA):
    """The same, in the hooks of the validation epoch."""

    on_validation_start = on_validation_end = Callback.on_validation_end

    def on_validation_epoch_start(self, trainer, module):
        self.swap(module)

    def on_validation_epoch_end(self, trainer, module):
        self.swap(module)


class SwapsInModule(Net):
    """The same, in the hooks of the LightningModule."""

    def __init__(self):
        super().__init__()
        self.ema = RawEMA()

    def on_fit_start(self):
        self.ema.on_fit_start(None, self)

    def on_train_batch_end(self, *args):
        self.ema.on_train_batch_end(None, self)

    def on_validation_epoch_start(self):
        self.ema.swap(self)

    def on_validation_epoch_end(self):
        self.ema.swap(self)


class ValidatedWeights(Callback):
    """Copies of the weights that are validated."""

    def __init__(self):
        self.states = []

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0 and not trainer.sanity_checking:
            self.states.append(copy.deepcopy(module.state_dict()))


AVERAGES = {
    "EMA": lambda: EMAWeightAveraging(decay=0.9),
    "EMA from epoch 1": lambda: EMAWeightAveraging(decay=0.9, update_starting_at_epoch=1),
    "average without buffers": lambda: WeightAveraging(use_buffers=False),
    "on_validation_start": RawEMA,
    "on_validation_epoch_start": SwapsAtEpochs,
    "module": Callback,
}


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[needs_lightning_26] if " " in name or name == "EMA" else []) for name in AVERAGES],
)
def test_the_weights_that_are_validated_are_compared(name, order):
    """The order of the callbacks does not matter."""
    make = SwapsInModule if name == "module" else Net
    monitor, average, validated = CKAMonitor(["initial", "previous"]), AVERAGES[name](), ValidatedWeights()
    callbacks = [monitor, average] if order == "before" else [average, monitor]
    watched, _ = run(*callbacks, validated, model=make)
    if order == "before":
        plain, _ = run(AVERAGES[name](), model=make)
        assert same_weights(plain, watched)
    seed_everything(3, workers=True, verbose=False)
    models = [Net() for _ in range(3)]  # The first has the initial weights.
    for model, state in zip(models[1:], validated.states, strict=True):
        model.load_state_dict(state)
    batches = [batch.data for batch in monitor._session.probe.probe.batches()]
    for epoch in range(2):
        for reference, other in (("initial", models[0]), ("previous", models[epoch])):
            expected = compare_models(models[epoch + 1], other, batches, progress_bar=False).matrix
            torch.testing.assert_close(monitor.results[reference][epoch].matrix, expected, rtol=0, atol=1e-12)


@needs_lightning_26
def test_validation_after_training_compares_the_average():
    """At the end of training, `WeightAveraging` copies the average into the model."""
    monitor = CKAMonitor()
    model, fitted = run(EMAWeightAveraging(decay=0.9), monitor)
    fitted.validate(model, loaders()[1], verbose=False)
    during, after = monitor.results["initial"][-2:]
    torch.testing.assert_close(during.matrix, after.matrix, rtol=0, atol=1e-12)


@needs_lightning_26
def test_a_resumed_run_with_averaged_weights_has_the_results_of_an_uninterrupted_one(tmp_path):
    def fit(folder, epochs, ckpt_path=None, *, first=False):
        seed_everything(3, workers=True, verbose=False)
        model, monitor = Net(), CKAMonitor(["initial", "previous", 0], dirpath=tmp_path / folder / "cka")
        model.net[3] = nn.Identity()  # Lightning does not restore the random state that dropout uses.
        checkpoint = ModelCheckpoint(tmp_path / folder, filename="{epoch}", save_top_k=-1)
        callbacks = [monitor, EMAWeightAveraging(decay=0.9)]
        fitted = trainer(*callbacks[:: 1 if first else -1], checkpoint, max_epochs=epochs, enable_checkpointing=True)
        fitted.fit(model, DataLoader(dataset(seed=1), batch_size=16), loaders()[1], ckpt_path=ckpt_path)
        return monitor

    whole, _ = fit("whole", 3), fit("part", 2)
    assert same_results(whole, fit("part", 3, tmp_path / "part" / "epoch=1.ckpt", first=True))


@pytest.mark.filterwarnings("ignore:SWA is initializing after swa_start")
def test_stochastic_weight_averaging():
    """After the last epoch, it runs another one for the statistics of batch norm, and validates the average."""
    settings = {"max_epochs": 4}
    monitor = CKAMonitor(["initial", "previous"])
    watched, _ = run(StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2), monitor, **settings)
    plain, _ = run(StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2), **settings)
    assert same_weights(plain, watched)
    assert [r.epoch for r in monitor.results["initial"]] == [0, 1, 2, 3, 4]


class WithAverage(Net):
    """A network with its average as a submodule, which forward does not run."""

    def __init__(self):
        super().__init__()
        self.average = AveragedModel(self.net)

    def on_train_batch_end(self, *args):
        self.average.update_parameters(self.net)


class ValidatesAverage(WithAverage):
    """In evaluation mode, forward runs the average."""

    def forward(self, x):
        return self.head(self.net(x) if self.training else self.average(x))


def test_an_averaged_model_as_a_submodule_is_compared_if_forward_runs_it():
    for model, names in (
        (WithAverage, ("net.0", "net.1", "net.4", "head")),
        (ValidatesAverage, ("average.module.0", "average.module.1", "average.module.4", "head")),
    ):
        monitor = CKAMonitor(["initial", "self"])
        watched, _ = run(monitor, model=model)
        plain, _ = run(model=model)
        assert same_weights(plain, watched)
        assert monitor.results["initial"][-1].layers == names
