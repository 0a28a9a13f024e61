"""`CKAMonitor` in the loops that people run: when it compares, with which weights, and training as without it."""

import copy
import logging
import math
from datetime import timedelta
from itertools import cycle, islice

import lightning as L
import pytest
import torch
from conftest import Net, dataset, loaders, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities import CombinedLoader
from lightning_cka import CKAMonitor, GramBank, compare_banks, compare_models
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, IterableDataset

try:  # Of Lightning 2.6.
    from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
except ImportError:
    EMAWeightAveraging = WeightAveraging = None

# What it has not: WeightAveraging, intervals of time, and a LearningRateFinder that does not skip an epoch.
needs_lightning_26 = pytest.mark.skipif(EMAWeightAveraging is None, reason="Lightning before 2.6")
pytestmark = [
    # Networks with two outputs and small probe sets are rightly flagged; tests/test_diagnostics.py has the flags.
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    # Of Lightning, on the Trainers that are tried here.
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`"),
    pytest.mark.filterwarnings("ignore:Your `val_dataloader`'s sampler has shuffling enabled"),
    pytest.mark.filterwarnings("ignore:You are trying to `self.log..`"),
    pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor"),
    pytest.mark.filterwarnings("ignore:Found `dataloader_iter` argument in the `validation_step`"),
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),
    pytest.mark.usefixtures("_without_figures"),
]


class NoValidation(Net):
    validation_step = L.LightningModule.validation_step


class EmptyList(Net):
    def val_dataloader(self):
        return []


class Endless(IterableDataset):
    """A stream that has no length, and no end."""

    def __init__(self, length=None):
        self.length = length

    def __iter__(self):
        return islice(cycle(dataset(seed=1)), self.length)


def run(*callbacks, model=Net, train=None, validation="default", **kwargs):
    """Train from the same state each time; 8 batches of 16 in an epoch, and 8 to validate, unless told otherwise."""
    seed_everything(3, workers=True, verbose=False)
    network, (own, others) = model(), loaders()
    if validation == "default":
        validation = None if model is EmptyList else others
    used = trainer(*callbacks, **kwargs)
    used.fit(network, own if train is None else train, validation)
    return network, used


def moments(monitor, name="initial"):
    return [(result.epoch, result.step) for result in monitor.results.get(name, [])]


def same_weights(one, other):
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def same_results(one, other):
    assert one.results.keys() == other.results.keys()
    for name, results in one.results.items():
        assert moments(one, name) == moments(other, name)
        assert all(torch.equal(a.matrix, b.matrix) for a, b in zip(results, other.results[name], strict=True))
    return len(one.results) > 0


def infinite(batch_size=16):
    return DataLoader(Endless(), batch_size=batch_size)


EPOCHS = [(0, 7), (1, 15)]
SETTINGS = {
    "a fraction of an epoch": ({"val_check_interval": 0.25}, [(e, 8 * e + s) for e in (0, 1) for s in (1, 3, 5, 7)]),
    "a number of batches": ({"val_check_interval": 3}, [(0, 2), (0, 5), (1, 10), (1, 13)]),
    "batches across epochs": (
        {"val_check_interval": 5, "check_val_every_n_epoch": None, "max_epochs": 3},
        [(0, 4), (1, 9), (1, 14), (2, 19)],
    ),
    "steps alone": (
        {"max_epochs": -1, "max_steps": 12, "val_check_interval": 5, "check_val_every_n_epoch": None},
        [(0, 4), (1, 9)],
    ),
    "steps that end within an epoch": ({"max_epochs": None, "max_steps": 12}, [(0, 7)]),
    "some epochs": ({"check_val_every_n_epoch": 2, "max_epochs": 4, "num_sanity_val_steps": 0}, [(1, 15), (3, 31)]),
    "some of some epochs": (
        {"check_val_every_n_epoch": 2, "max_epochs": 4, "val_check_interval": 4},
        [(1, 11), (1, 15), (3, 27), (3, 31)],
    ),
    "a limit of time": ({"max_time": "00:01:00:00"}, EPOCHS),
    "whenever some time has passed": (
        {"val_check_interval": timedelta(0), "limit_train_batches": 2},
        [(0, 0), (0, 1), (1, 2), (1, 3)],
    ),
    "accumulated gradients": ({"accumulate_grad_batches": 3}, [(0, 2), (1, 5)]),
    "validation between two steps": (
        {"accumulate_grad_batches": 2, "val_check_interval": 3},
        [(0, 1), (0, 2), (1, 5), (1, 6)],
    ),
    "few training batches": ({"limit_train_batches": 3}, [(0, 2), (1, 5)]),
    "few validation batches": ({"limit_val_batches": 2}, EPOCHS),
    "a fraction of the validation batches": ({"limit_val_batches": 0.25}, EPOCHS),
    "overfitting": ({"overfit_batches": 2}, [(0, 1), (1, 3)]),
    "all batches before training": ({"num_sanity_val_steps": -1}, EPOCHS),
    "no inference mode": ({"inference_mode": False}, EPOCHS),
    "at least some epochs": ({"min_epochs": 2}, EPOCHS),
    "loaders that are made anew": ({"reload_dataloaders_every_n_epochs": 1}, EPOCHS),
    "one batch": ({"fast_dev_run": True}, [(0, 0)]),
    "three batches": ({"fast_dev_run": 3}, [(0, 2)]),
}


@pytest.mark.filterwarnings("ignore:You requested to overfit but enabled train dataloader shuffling")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[needs_lightning_26] if name.startswith("whenever") else []) for name in SETTINGS],
)
def test_training_is_as_it_was_and_there_is_a_result_at_each_validation(name):
    settings, expected = SETTINGS[name]
    seen = []

    class Validations(Callback):
        """Where Lightning validates, and whether the keys are there for those who come later."""

        def on_validation_end(self, trainer, module):
            if not trainer.sanity_checking:
                seen.append((trainer.current_epoch, trainer.fit_loop.epoch_loop._batches_that_stepped))
                for key in ("cka/initial/mean", "cka/initial/head", "cka/previous/mean", "cka/self/mean"):
                    assert math.isfinite(trainer.callback_metrics[key])

    monitor = CKAMonitor(["initial", "previous", "self"], num_samples=64)
    watched, _ = run(monitor, Validations(), **settings)
    plain, _ = run(**settings)
    assert same_weights(plain, watched)
    assert seen == expected
    for reference in ("initial", "previous", "self"):
        assert moments(monitor, reference) == expected
    samples = 32 if "fast_dev_run" in settings else 64
    assert all(result.num_samples == samples for result in monitor.results["initial"])  # Whatever is validated on.
    before = [monitor.results["initial"][0].matrix, *(r.matrix for r in monitor.results["previous"][1:])]
    assert torch.equal(before[0], monitor.results["previous"][0].matrix)


def test_the_probe_set_does_not_depend_on_how_much_is_validated():
    """Of 128 samples, with 16 of them validated: the choice is among all."""
    few, all_of_them, shuffled = CKAMonitor(), CKAMonitor(), CKAMonitor()
    run(few, limit_val_batches=1)
    run(all_of_them)
    run(shuffled, validation=DataLoader(dataset(seed=2), batch_size=16, shuffle=True), limit_val_batches=0.5)
    assert few.results["initial"][0].num_samples == 128
    assert same_results(few, all_of_them)
    assert few._session.probe.probe.indices == shuffled._session.probe.probe.indices


@pytest.mark.parametrize("limits", [{"check_val_every_n_epoch": None}, {}])
def test_an_endless_epoch_has_a_result_at_each_validation(limits):
    settings = {"max_epochs": -1, "max_steps": 20, "val_check_interval": 6, "train": infinite(), **limits}
    monitor = CKAMonitor(["initial", "previous"])
    watched, used = run(monitor, EarlyStopping("cka/initial/mean", patience=9, mode="min"), **settings)
    plain, _ = run(**settings)
    assert same_weights(plain, watched)
    assert used.num_training_batches == math.inf
    assert moments(monitor) == moments(monitor, "previous") == [(0, 5), (0, 11), (0, 17)]
    assert not torch.equal(monitor.results["initial"][2].matrix, monitor.results["previous"][2].matrix)


def test_a_stream_that_ends_has_epochs():
    train = DataLoader(Endless(64), batch_size=16)
    monitor = CKAMonitor(["initial", 1], every_n_epochs=2)
    run(monitor, train=train, max_epochs=4)
    assert moments(monitor) == moments(monitor, "epoch-1") == [(1, 7), (3, 15)]
    monitor = CKAMonitor(every_n_epochs=2)
    run(monitor, train=train, max_epochs=4, val_check_interval=2)
    assert moments(monitor) == [(1, 5), (1, 7), (3, 13), (3, 15)]


def test_a_stream_with_epochs_of_a_given_length():
    monitor = CKAMonitor(["initial", 1], every_n_epochs=2)
    run(
        monitor,
        train=infinite(),
        limit_train_batches=4,
        max_epochs=-1,
        max_steps=16,
        val_check_interval=2,
        check_val_every_n_epoch=None,
    )
    assert moments(monitor) == [(1, 5), (1, 7), (3, 13), (3, 15)]
    assert moments(monitor, "epoch-1") == [(1, 7), (3, 13), (3, 15)]


STEPS = {"max_epochs": -1, "max_steps": 12, "val_check_interval": 5, "check_val_every_n_epoch": None}


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (
            lambda: CKAMonitor(every_n_epochs=2),
            {**STEPS, "train": infinite()},
            "every_n_epochs=2 would log nothing: the training data have no length .* With every_n_epochs=1 there is",
        ),
        (
            lambda: CKAMonitor(0),
            {**STEPS, "train": infinite()},
            "epoch 0 cannot be a reference: the training data have no length .* limit_train_batches= gives it a length",
        ),
        (
            lambda: CKAMonitor(every_n_epochs=3),
            {"max_epochs": 2},
            "every_n_epochs=3 would log nothing: max_epochs=2 comes before that",
        ),
        (lambda: CKAMonitor(), {"limit_val_batches": 0}, r"limit_val_batches=0.* pass dataloader="),
        (lambda: CKAMonitor(), {"limit_val_batches": 0.0}, r"limit_val_batches=0.* pass dataloader="),
        (lambda: CKAMonitor(), {"model": NoValidation}, "no validation loop"),
        (lambda: CKAMonitor(), {"model": EmptyList}, "no validation loop"),
        (
            lambda: CKAMonitor(dataloader_idx=2),
            {"validation": [loaders()[1], loaders()[1]], "num_sanity_val_steps": 0, "check_val_every_n_epoch": 2},
            "dataloader_idx is 2, but there are 2 validation loaders",
        ),
        (
            lambda: CKAMonitor(dataloader_idx=2),
            {
                "validation": CombinedLoader({"a": loaders()[1], "b": loaders()[1]}, "min_size"),
                "num_sanity_val_steps": 0,
            },
            "dataloader_idx is 2, but there are 2 validation loaders",
        ),
    ],
)
def test_what_could_log_nothing_is_refused_before_the_first_step(make, settings, message):
    steps = []

    class Counts(Callback):
        def on_train_batch_start(self, *args):
            steps.append(1)

    with pytest.raises(ValueError, match=message):
        run(make(), Counts(), **settings)
    assert steps == []


def test_a_run_that_ends_before_an_epoch_is_due_is_said():
    with pytest.warns(UserWarning, match=r"no results: training ended before a validation .* .every_n_epochs=2, check"):
        run(CKAMonitor(every_n_epochs=2), max_epochs=None, max_steps=12)


def test_references_by_epoch_where_validation_is_not_at_the_end_of_epochs(tmp_path):
    """The reference is the model at the last validation in that epoch, and compared with from then on."""
    monitor = CKAMonitor(["previous", 1], dirpath=tmp_path, save_banks=True)
    run(monitor, max_epochs=3, val_check_interval=5, check_val_every_n_epoch=None)
    assert moments(monitor, "previous") == [(0, 4), (1, 9), (1, 14), (2, 19)]
    assert moments(monitor, "epoch-1") == [(2, 19)]
    last, then = (
        GramBank.load(tmp_path / f"banks/epoch={m}.safetensors") for m in ("001-step=000014", "002-step=000019")
    )
    torch.testing.assert_close(
        monitor.results["epoch-1"][0].matrix, compare_banks(then, last).matrix, rtol=0, atol=1e-12
    )


def test_those_who_monitor_the_reference_of_an_epoch_before_its_end_are_refused():
    listener = EarlyStopping("cka/epoch-0/mean")
    with pytest.raises(ValueError, match="CKAMonitor logs it from the end of epoch 0 on"):
        run(CKAMonitor(0), listener, val_check_interval=0.5)
    run(CKAMonitor(0), listener, max_epochs=1)


def test_checkpoints_by_step_see_the_keys(tmp_path):
    """They are saved before the validation of the same step, with what was logged at the one before."""
    checkpoint = ModelCheckpoint(tmp_path, monitor="cka/initial/mean", mode="min", every_n_train_steps=6, save_top_k=-1)
    monitor = CKAMonitor()
    settings = STEPS | {"enable_checkpointing": True, "max_steps": 14, "num_sanity_val_steps": 0}
    run(monitor, checkpoint, **settings)
    means = [result.mean() for result in monitor.results["initial"]]
    assert moments(monitor) == [(0, 4), (1, 9)]
    assert [score.item() for score in checkpoint.best_k_models.values()] == pytest.approx(means, abs=1e-6)
    with pytest.raises(ValueError, match=r"ModelCheckpoint looks for 'cka/initial/mean' at each .* every 2 epochs"):
        run(CKAMonitor(every_n_epochs=2), checkpoint, **settings)


class Plateau(Net):
    key = "cka/initial/mean"

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, mode="max", factor=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": self.key}}


def test_schedulers_see_the_keys_and_are_checked():
    _, used = run(CKAMonitor(), model=Plateau, max_epochs=3)
    assert used.optimizers[0].param_groups[0]["lr"] < 0.1  # CKA with the initial weights falls.
    with pytest.raises(ValueError, match="ReduceLROnPlateau looks for 'cka/initial/mean' at each validation"):
        run(CKAMonitor(every_n_epochs=2), model=Plateau)

    class Misspelt(Plateau):
        key = "cka/initial/maen"

    with pytest.raises(ValueError, match="ReduceLROnPlateau looks for 'cka/initial/maen', which CKAMonitor does not"):
        run(CKAMonitor(), model=Misspelt)


@pytest.mark.parametrize(
    "settings",
    [
        {"limit_val_batches": 0},
        {"model": NoValidation},
        {"model": EmptyList},
        {"validation": None},
        {"check_val_every_n_epoch": 2, "limit_val_batches": 0},
    ],
)
def test_without_validation_an_own_dataloader_is_compared_at_the_end_of_each_training_epoch(settings):
    probe = DataLoader(dataset(64, seed=5), batch_size=16, shuffle=True)
    monitor = CKAMonitor(["initial", 0], dataloader=probe)
    stopping = EarlyStopping("cka/initial/mean", patience=9, check_on_train_epoch_end=True)
    model, used = run(monitor, stopping, **settings)
    plain, _ = run(**settings)
    assert same_weights(plain, model)
    assert moments(monitor) == moments(monitor, "epoch-0") == [(0, 7), (1, 15)]
    assert used.callback_metrics["cka/initial/mean"].item() == pytest.approx(monitor.results["initial"][1].mean())


def test_an_endless_epoch_without_validation_is_compared_when_training_ends():
    monitor = CKAMonitor(dataloader=loaders()[1])
    with pytest.warns(UserWarning, match="compares once, when training stops: there is no validation loop"):
        run(monitor, train=infinite(), limit_val_batches=0, max_epochs=-1, max_steps=10)
    assert moments(monitor) == [(0, 9)]


def test_a_barebones_trainer_logs_nothing_but_there_are_results():
    monitor, plain, off = CKAMonitor(), CKAMonitor(dirpath="plain"), dict.fromkeys(("logger", "enable_checkpointing"))
    off |= dict.fromkeys(("enable_progress_bar", "enable_model_summary"))
    _, used = run(monitor, barebones=True, **off)
    run(plain)
    assert same_results(monitor, plain)
    assert "cka/initial/mean" not in used.callback_metrics


class Several(Net):
    """Of several validation loaders, whichever way they are combined."""

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
    """The probe set is drawn from the chosen one, also before Lightning has loaded them."""

    def validation():
        parts = {
            "a": DataLoader(dataset(64, seed=4), batch_size=16),
            "b": DataLoader(dataset(128, seed=2), batch_size=16),
        }
        return {"list": [*parts.values()], "dict": parts}.get(mode) or CombinedLoader(parts, mode)

    settings = {"check_val_every_n_epoch": check_val_every_n_epoch, "num_sanity_val_steps": 0, "max_epochs": 2}
    first, second, alone = CKAMonitor(), CKAMonitor(dataloader_idx=1, log_key_prefix="b/"), CKAMonitor()
    watched, used = run(first, second, model=Several, validation=validation(), **settings)
    run(alone, **settings)
    if mode == "min_size":
        assert same_weights(run(model=Several, validation=validation(), **settings)[0], watched)
    assert [r.num_samples for r in first.results["initial"]] == [64] * (2 // check_val_every_n_epoch)
    # The first results: a loader draws a random number whenever it is iterated, and so two draw more than one.
    assert torch.equal(second.results["initial"][0].matrix, alone.results["initial"][0].matrix)
    assert not torch.equal(first.results["initial"][0].matrix, alone.results["initial"][0].matrix)
    assert {"cka/initial/mean", "b/initial/mean"} <= set(used.callback_metrics)


def test_a_validation_step_that_takes_the_iterator():
    class Takes(Net):
        def validation_step(self, dataloader_iter):
            batch, *_ = next(dataloader_iter)
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]), batch_size=16)

    monitor, plain = CKAMonitor(), CKAMonitor()
    run(monitor, model=Takes)
    run(plain)
    assert same_results(monitor, plain)


class Data(L.LightningDataModule):
    """Validation data that are others each time they are asked for."""

    def __init__(self, grows):
        super().__init__()
        self.grows, self.calls, self.batch_size = grows, 0, 16

    def train_dataloader(self):
        return DataLoader(dataset(seed=1), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        self.calls += 1
        return DataLoader(dataset(seed=2 + self.grows * self.calls), batch_size=self.batch_size)


@pytest.mark.parametrize("grows", [0, 1])
def test_a_datamodule_that_is_asked_anew_in_each_epoch_leaves_the_probe_set(grows):
    def fit(*callbacks):
        seed_everything(3, workers=True, verbose=False)
        model, data = Net(), Data(grows)
        trainer(*callbacks, max_epochs=3, reload_dataloaders_every_n_epochs=1).fit(model, datamodule=data)
        return model, data.calls

    monitor = CKAMonitor(["initial", "previous", "self"])
    watched, calls = fit(monitor)
    plain, plain_calls = fit()
    assert same_weights(plain, watched)
    assert calls == plain_calls > 2
    assert [result.num_samples for result in monitor.results["previous"]] == [128] * 3
    assert all(math.isfinite(result.mean()) for result in monitor.results["previous"])


class RawEMA(Callback):
    """An average in the hooks that many projects' own callbacks use."""

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
    """The same in other hooks."""

    on_validation_start = on_validation_end = Callback.on_validation_end

    def on_validation_epoch_start(self, trainer, module):
        self.swap(module)

    def on_validation_epoch_end(self, trainer, module):
        self.swap(module)


class SwapsItself(Net):
    """A module that validates with its average, in its own hooks."""

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
    """Copies of the model, as validation sees it."""

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
def test_weights_that_are_swapped_in_for_validation_are_those_that_are_compared(name, order):
    """Wherever the monitor is in the list of callbacks."""
    make = SwapsItself if name == "module" else Net
    monitor, average, validated = CKAMonitor(["initial", "previous"]), AVERAGES[name](), ValidatedWeights()
    callbacks = [monitor, average] if order == "before" else [average, monitor]
    watched, _ = run(*callbacks, validated, model=make)
    if order == "before":
        plain, _ = run(AVERAGES[name](), model=make)
        assert same_weights(plain, watched)
    seed_everything(3, workers=True, verbose=False)
    models = [Net() for _ in range(3)]  # The first one has the initial weights.
    for model, state in zip(models[1:], validated.states, strict=True):
        model.load_state_dict(state)
    batches = [batch.data for batch in monitor._session.probe.probe.batches()]
    for epoch in range(2):
        for reference, other in (("initial", models[0]), ("previous", models[epoch])):
            expected = compare_models(models[epoch + 1], other, batches, progress_bar=False).matrix
            torch.testing.assert_close(monitor.results[reference][epoch].matrix, expected, rtol=0, atol=1e-12)


@needs_lightning_26
def test_after_training_validation_sees_the_average():
    """`WeightAveraging` leaves the average in the model at the end of training."""
    monitor = CKAMonitor()
    model, used = run(EMAWeightAveraging(decay=0.9), monitor)
    used.validate(model, loaders()[1], verbose=False)
    during, after = monitor.results["initial"][-2:]
    torch.testing.assert_close(during.matrix, after.matrix, rtol=0, atol=1e-12)


@needs_lightning_26
def test_a_resumed_run_with_averaged_weights_is_one_that_never_stopped(tmp_path):
    def fit(folder, epochs, ckpt_path=None, *, first=False):
        seed_everything(3, workers=True, verbose=False)
        model, monitor = Net(), CKAMonitor(["initial", "previous", 0], dirpath=tmp_path / folder / "cka")
        model.net[3] = nn.Identity()  # Lightning does not restore random generators, and dropout draws from one.
        checkpoint = ModelCheckpoint(tmp_path / folder, filename="{epoch}", save_top_k=-1)
        callbacks = [monitor, EMAWeightAveraging(decay=0.9)]
        used = trainer(*callbacks[:: 1 if first else -1], checkpoint, max_epochs=epochs, enable_checkpointing=True)
        used.fit(model, DataLoader(dataset(seed=1), batch_size=16), loaders()[1], ckpt_path=ckpt_path)
        return monitor

    whole, _ = fit("whole", 3), fit("part", 2)
    assert same_results(whole, fit("part", 3, tmp_path / "part" / "epoch=1.ckpt", first=True))


@pytest.mark.filterwarnings("ignore:SWA is initializing after swa_start")
def test_stochastic_weight_averaging():
    """Whose extra epoch, for the statistics of batch norm, is validated with the average."""
    settings = {"max_epochs": 4}
    monitor = CKAMonitor(["initial", "previous"])
    watched, _ = run(StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2), monitor, **settings)
    plain, _ = run(StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2), **settings)
    assert same_weights(plain, watched)
    assert [r.epoch for r in monitor.results["initial"]] == [0, 1, 2, 3, 4]


class Averaged(Net):
    """An average that is a submodule."""

    def __init__(self):
        super().__init__()
        self.average = AveragedModel(self.net)

    def on_train_batch_end(self, *args):
        self.average.update_parameters(self.net)


class ShowsAverage(Averaged):
    def forward(self, x):
        return self.head(self.net(x) if self.training else self.average(x))


def test_an_averaged_model_as_an_attribute():
    """Compared if forward runs it, as in the validation of the second one, and not else."""
    for model, names in (
        (Averaged, ("net.0", "net.1", "net.4", "head")),
        (ShowsAverage, ("average.module.0", "average.module.1", "average.module.4", "head")),
    ):
        monitor = CKAMonitor(["initial", "self"])
        watched, _ = run(monitor, model=model)
        plain, _ = run(model=model)
        assert same_weights(plain, watched)
        assert monitor.results["initial"][-1].layers == names


class Tuned(Net):
    """Its own loaders, for a tuner that changes their batch size."""

    def __init__(self):
        super().__init__()
        self.lr, self.batch_size = 0.1, 16

    def train_dataloader(self):
        return DataLoader(dataset(seed=1), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(dataset(seed=2), batch_size=16)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


TUNERS = {
    "learning rate": lambda used, model: Tuner(used).lr_find(model, num_training=20, update_attr=True),
    "batch size": lambda used, model: Tuner(used).scale_batch_size(model, max_trials=2, init_val=16, steps_per_trial=2),
}


@pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval")
@pytest.mark.parametrize("name", TUNERS)
def test_tuners_leave_nothing_behind(name, tmp_path):
    def fit(*callbacks, tune):
        seed_everything(3, workers=True, verbose=False)
        model = Tuned()
        used = trainer(*callbacks)
        if tune:
            TUNERS[name](used, model)
            if callbacks:
                assert callbacks[0].results == {}
                assert not (tmp_path / "cka").exists()
        else:
            model.lr, model.batch_size = settings
        seed_everything(4, workers=True, verbose=False)
        used.fit(model)
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
        model = Tuned()
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
def test_a_tuner_does_not_bring_back_an_earlier_run_of_the_same_monitor():
    """It saves a checkpoint before training, with the state of callbacks, and reads it."""
    monitor = CKAMonitor(["initial", "previous"])
    for epochs in (1, 2):
        trainer(monitor, LearningRateFinder(num_training_steps=20), max_epochs=epochs).fit(Tuned())
    assert moments(monitor) == moments(monitor, "previous") == [(0, 7), (1, 15)]
    assert torch.equal(monitor.results["initial"][0].matrix, monitor.results["previous"][0].matrix)


def test_a_fast_dev_run_tries_all_references_whenever_they_are_due(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "a.pt")
    monitor = CKAMonitor(["initial", "previous", "self", 3, tmp_path / "a.pt", Net()], every_n_epochs=4)
    run(monitor, fast_dev_run=3)
    assert {name: len(results) for name, results in monitor.results.items()} == dict.fromkeys(
        ("initial", "previous", "self", "a", "Net"), 1
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_validating_a_checkpoint_with_a_monitor_that_never_trained(tmp_path):
    """The weights are those of the checkpoint, not those of the model that was passed."""
    trained, used = run()
    used.save_checkpoint(tmp_path / "trained.ckpt")
    torch.manual_seed(7)
    reference, other = Net(), Net()
    monitor = CKAMonitor([reference, "self"], dirpath=tmp_path / "cka")
    trainer(monitor).validate(other, loaders()[1], ckpt_path=tmp_path / "trained.ckpt", verbose=False)
    batches = [batch.data for batch in monitor._session.probe.probe.batches()]
    (result,), (own,) = monitor.results["Net"], monitor.results["self"]
    expected = compare_models(trained, reference, batches, progress_bar=False).matrix
    torch.testing.assert_close(result.matrix, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        own.matrix, compare_models(trained, trained, batches, progress_bar=False).matrix, rtol=0, atol=1e-12
    )
    assert (result.epoch, result.step) == (None, None)


class Adversarial(L.LightningModule):
    """Two networks, two optimizers, steps by hand; forward is the generator alone."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        self.discriminator = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x):
        return self.generator(x)

    def training_step(self, batch, batch_idx):
        for optimizer, sign in zip(self.optimizers(), (1, -1), strict=True):
            loss = sign * (self.discriminator(self(batch[0])) - self.discriminator(batch[0])).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            if (batch_idx + 1) % 2 == 0:
                optimizer.step()

    def validation_step(self, batch, batch_idx):
        self.log("score", self.discriminator(self(batch[0])).mean())

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.generator, self.discriminator)]


@pytest.mark.parametrize("extra", [{}, {"val_check_interval": 3}, {"max_epochs": -1, "max_steps": 12}])
def test_manual_optimization_of_two_networks(extra, caplog):
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        monitor = CKAMonitor(["initial", "previous"])
        watched, _ = run(monitor, model=Adversarial, **extra)
    plain, _ = run(model=Adversarial, **extra)
    assert same_weights(plain, watched)
    assert monitor.results["initial"][-1].layers == ("generator.0", "generator.2")
    assert len({step for _, step in moments(monitor)}) == len(moments(monitor)) > 0
    out = "layer 'discriminator.0' (Linear), layer 'discriminator.2' (Linear) did not run in forward"
    assert f"leaves out of the default layers: {out}" in caplog.text


def test_both_networks_with_a_forward_fn():
    def forward_fn(module, batch):
        return module.discriminator(module(batch[0]))

    monitor = CKAMonitor(forward_fn=forward_fn)
    run(monitor, model=Adversarial)
    names = ("generator.0", "generator.2", "discriminator.0")  # And "discriminator.2", whose gradient is one direction.
    assert monitor.results["initial"][-1].layers[:3] == names


def test_a_second_fit_of_one_trainer_starts_anew(tmp_path):
    """From the weights that the first one left, which are the initial ones no more: that is said."""
    monitor = CKAMonitor(["initial", "previous"])
    model, used = run(monitor, max_epochs=1)
    used.fit_loop.max_epochs = 3
    with pytest.warns(UserWarning, match="goes on from step 8, .* '(initial|previous)' was not kept") as said:
        used.fit(model, *loaders())
    assert len([each for each in said if "goes on from" in str(each.message)]) == 2
    assert moments(monitor) == [(1, 15), (2, 23)]
    assert {r.reference_name for r in monitor.results["initial"]} == {"initial, restarted at step 8"}
    assert [p.name for p in (tmp_path / "cka" / "earlier-1" / "initial").iterdir()] == ["epoch=000-step=000007.json"]


def test_stopping_early_by_a_key_of_ours_and_at_once():
    stopping = EarlyStopping("cka/initial/mean", patience=0, mode="max")  # CKA falls, so it would stop at once.
    monitor = CKAMonitor()
    run(monitor, stopping, min_epochs=4, max_epochs=9)
    assert [r.epoch for r in monitor.results["initial"]] == [0, 1, 2, 3]

    class Stops(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            trainer.should_stop = batch_idx == 4

    monitor = CKAMonitor(["initial", 0])
    run(monitor, Stops())
    assert moments(monitor) == [(0, 4)]  # Lightning validates once more before it stops.


def test_a_validation_loader_that_gives_nothing():
    """There is no last batch to compare at, but a validation epoch to log in."""

    class Empty(IterableDataset):
        def __iter__(self):
            return iter(())

    monitor = CKAMonitor(dataloader=loaders()[1])
    run(monitor, validation=DataLoader(Empty(), batch_size=16))
    assert moments(monitor) == [(0, 7), (1, 15)]


def test_a_validation_loader_with_workers_that_stay_may_be_the_probes_own():
    """The pass comes once the loader has given its last batch: it would start it anew in between."""

    def validation():
        return DataLoader(dataset(seed=2), batch_size=16, num_workers=1, persistent_workers=True)

    class Counts(Net):
        batches = 0

        def validation_step(self, batch, batch_idx):
            self.batches += 1

    loader = validation()
    own = CKAMonitor(dataloader=loader)
    watched, _ = run(own, model=Counts, validation=loader, num_sanity_val_steps=0)
    assert watched.batches == 16
    assert [r.num_samples for r in own.results["initial"]] == [128, 128]
