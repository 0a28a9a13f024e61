"""Training without validation, and settings with which `CKAMonitor` would log nothing."""

import pytest
from conftest import dataset, loaders
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.utilities import CombinedLoader
from lightning_cka import CKAMonitor
from torch.utils.data import DataLoader
from training import (
    MARKS,
    STEPS,
    NoValidation,
    NoValidationLoaders,
    endless_loader,
    epochs_and_steps,
    run,
    same_results,
    same_weights,
)

pytestmark = MARKS


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (
            lambda: CKAMonitor(every_n_epochs=2),
            {**STEPS, "train": endless_loader()},
            "every_n_epochs=2 would log nothing: the training data have no length .* With every_n_epochs=1 there is",
        ),
        (
            lambda: CKAMonitor(0),
            {**STEPS, "train": endless_loader()},
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
        (lambda: CKAMonitor(), {"model": NoValidationLoaders}, "no validation loop"),
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
def test_settings_that_would_log_nothing_raise_before_the_first_step(make, settings, message):
    steps = []

    class CountSteps(Callback):
        def on_train_batch_start(self, *args):
            steps.append(1)

    with pytest.raises(ValueError, match=message):
        run(make(), CountSteps(), **settings)
    assert steps == []


def test_a_run_that_ends_before_the_first_comparison_warns():
    with pytest.warns(UserWarning, match=r"no results: training ended before a validation .* .every_n_epochs=2, check"):
        run(CKAMonitor(every_n_epochs=2), max_epochs=None, max_steps=12)


@pytest.mark.parametrize(
    "settings",
    [
        {"limit_val_batches": 0},
        {"model": NoValidation},
        {"model": NoValidationLoaders},
        {"validation": None},
        {"check_val_every_n_epoch": 2, "limit_val_batches": 0},
    ],
)
def test_with_a_dataloader_and_no_validation_each_training_epoch_has_a_result(settings):
    probe = DataLoader(dataset(64, seed=5), batch_size=16, shuffle=True)
    monitor = CKAMonitor(["initial", 0], dataloader=probe)
    stopping = EarlyStopping("cka/initial/mean", patience=9, check_on_train_epoch_end=True)
    model, fitted = run(monitor, stopping, **settings)
    plain, _ = run(**settings)
    assert same_weights(plain, model)
    assert epochs_and_steps(monitor) == epochs_and_steps(monitor, "epoch-0") == [(0, 7), (1, 15)]
    assert fitted.callback_metrics["cka/initial/mean"].item() == pytest.approx(monitor.results["initial"][1].mean())


def test_an_endless_epoch_without_validation_has_one_result_at_the_end():
    monitor = CKAMonitor(dataloader=loaders()[1])
    with pytest.warns(UserWarning, match="compares once, when training stops: there is no validation loop"):
        run(monitor, train=endless_loader(), limit_val_batches=0, max_epochs=-1, max_steps=10)
    assert epochs_and_steps(monitor) == [(0, 9)]


def test_a_barebones_trainer_logs_nothing_but_keeps_the_results():
    monitor, plain, off = CKAMonitor(), CKAMonitor(dirpath="plain"), dict.fromkeys(("logger", "enable_checkpointing"))
    off |= dict.fromkeys(("enable_progress_bar", "enable_model_summary"))
    _, fitted = run(monitor, barebones=True, **off)
    run(plain)
    assert same_results(monitor, plain)
    assert "cka/initial/mean" not in fitted.callback_metrics
