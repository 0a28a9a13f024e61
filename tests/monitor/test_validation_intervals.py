"""When `CKAMonitor` compares, for each setting of the Trainer's validation interval."""

import math
from datetime import timedelta

import pytest
import torch
from conftest import dataset
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning_cka import CKAMonitor, GramBank, compare_banks
from torch.utils.data import DataLoader
from training import (
    MARKS,
    Endless,
    endless_loader,
    epochs_and_steps,
    needs_lightning_26,
    run,
    same_results,
    same_weights,
)

pytestmark = MARKS


EPOCHS = [(0, 7), (1, 15)]


SETTINGS = {
    "a fraction of an epoch": ({"val_check_interval": 0.25}, [(e, 8 * e + s) for e in (0, 1) for s in (1, 3, 5, 7)]),
    "a number of batches": ({"val_check_interval": 3}, [(0, 2), (0, 5), (1, 10), (1, 13)]),
    "batches across epochs": (
        {"val_check_interval": 5, "check_val_every_n_epoch": None, "max_epochs": 3},
        [(0, 4), (1, 9), (1, 14), (2, 19)],
    ),
    "steps without epochs": (
        {"max_epochs": -1, "max_steps": 12, "val_check_interval": 5, "check_val_every_n_epoch": None},
        [(0, 4), (1, 9)],
    ),
    "steps that end within an epoch": ({"max_epochs": None, "max_steps": 12}, [(0, 7)]),
    "every second epoch": (
        {"check_val_every_n_epoch": 2, "max_epochs": 4, "num_sanity_val_steps": 0},
        [(1, 15), (3, 31)],
    ),
    "twice in every second epoch": (
        {"check_val_every_n_epoch": 2, "max_epochs": 4, "val_check_interval": 4},
        [(1, 11), (1, 15), (3, 27), (3, 31)],
    ),
    "a limit of time": ({"max_time": "00:01:00:00"}, EPOCHS),
    "an interval of time": (
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
    "a sanity check with all batches": ({"num_sanity_val_steps": -1}, EPOCHS),
    "no inference mode": ({"inference_mode": False}, EPOCHS),
    "at least some epochs": ({"min_epochs": 2}, EPOCHS),
    "loaders that are reloaded": ({"reload_dataloaders_every_n_epochs": 1}, EPOCHS),
    "one batch": ({"fast_dev_run": True}, [(0, 0)]),
    "three batches": ({"fast_dev_run": 3}, [(0, 2)]),
}


@pytest.mark.filterwarnings("ignore:You requested to overfit but enabled train dataloader shuffling")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[needs_lightning_26] if name == "an interval of time" else []) for name in SETTINGS],
)
def test_training_is_unchanged_and_each_validation_has_a_result(name):
    settings, expected = SETTINGS[name]
    validations = []

    class Validations(Callback):
        """Record when Lightning validates, and check that the keys are logged by then."""

        def on_validation_end(self, trainer, module):
            if not trainer.sanity_checking:
                validations.append((trainer.current_epoch, trainer.fit_loop.epoch_loop._batches_that_stepped))
                for key in ("cka/initial/mean", "cka/initial/head", "cka/previous/mean", "cka/self/mean"):
                    assert math.isfinite(trainer.callback_metrics[key])

    monitor = CKAMonitor(["initial", "previous", "self"], num_samples=64)
    watched, _ = run(monitor, Validations(), **settings)
    plain, _ = run(**settings)
    assert same_weights(plain, watched)
    assert validations == expected
    for reference in ("initial", "previous", "self"):
        assert epochs_and_steps(monitor, reference) == expected
    samples = 32 if "fast_dev_run" in settings else 64
    # The limits on validation batches do not limit the probe set.
    assert all(result.num_samples == samples for result in monitor.results["initial"])
    before = [monitor.results["initial"][0].matrix, *(r.matrix for r in monitor.results["previous"][1:])]
    assert torch.equal(before[0], monitor.results["previous"][0].matrix)


def test_the_probe_set_does_not_depend_on_limit_val_batches():
    """Validation sees 16 of 128 samples; the probe set is drawn from all of them."""
    few, all_samples, shuffled = CKAMonitor(), CKAMonitor(), CKAMonitor()
    run(few, limit_val_batches=1)
    run(all_samples)
    run(shuffled, validation=DataLoader(dataset(seed=2), batch_size=16, shuffle=True), limit_val_batches=0.5)
    assert few.results["initial"][0].num_samples == 128
    assert same_results(few, all_samples)
    assert few._session.probe.probe.indices == shuffled._session.probe.probe.indices


@pytest.mark.parametrize("limits", [{"check_val_every_n_epoch": None}, {}])
def test_an_endless_epoch_has_a_result_at_each_validation(limits):
    settings = {"max_epochs": -1, "max_steps": 20, "val_check_interval": 6, "train": endless_loader(), **limits}
    monitor = CKAMonitor(["initial", "previous"])
    watched, fitted = run(monitor, EarlyStopping("cka/initial/mean", patience=9, mode="min"), **settings)
    plain, _ = run(**settings)
    assert same_weights(plain, watched)
    assert fitted.num_training_batches == math.inf
    assert epochs_and_steps(monitor) == epochs_and_steps(monitor, "previous") == [(0, 5), (0, 11), (0, 17)]
    assert not torch.equal(monitor.results["initial"][2].matrix, monitor.results["previous"][2].matrix)


def test_a_stream_that_ends_has_epochs():
    train = DataLoader(Endless(64), batch_size=16)
    monitor = CKAMonitor(["initial", 1], every_n_epochs=2)
    run(monitor, train=train, max_epochs=4)
    assert epochs_and_steps(monitor) == epochs_and_steps(monitor, "epoch-1") == [(1, 7), (3, 15)]
    monitor = CKAMonitor(every_n_epochs=2)
    run(monitor, train=train, max_epochs=4, val_check_interval=2)
    assert epochs_and_steps(monitor) == [(1, 5), (1, 7), (3, 13), (3, 15)]


def test_a_stream_with_epochs_of_a_given_length():
    monitor = CKAMonitor(["initial", 1], every_n_epochs=2)
    run(
        monitor,
        train=endless_loader(),
        limit_train_batches=4,
        max_epochs=-1,
        max_steps=16,
        val_check_interval=2,
        check_val_every_n_epoch=None,
    )
    assert epochs_and_steps(monitor) == [(1, 5), (1, 7), (3, 13), (3, 15)]
    assert epochs_and_steps(monitor, "epoch-1") == [(1, 7), (3, 13), (3, 15)]


def test_a_reference_by_epoch_when_validation_is_not_at_the_end_of_an_epoch(tmp_path):
    """The reference is the model at the last validation of that epoch."""
    monitor = CKAMonitor(["previous", 1], dirpath=tmp_path, save_banks=True)
    run(monitor, max_epochs=3, val_check_interval=5, check_val_every_n_epoch=None)
    assert epochs_and_steps(monitor, "previous") == [(0, 4), (1, 9), (1, 14), (2, 19)]
    assert epochs_and_steps(monitor, "epoch-1") == [(2, 19)]
    last, then = (
        GramBank.load(tmp_path / f"banks/epoch={m}.safetensors") for m in ("001-step=000014", "002-step=000019")
    )
    torch.testing.assert_close(
        monitor.results["epoch-1"][0].matrix, compare_banks(then, last).matrix, rtol=0, atol=1e-12
    )
