"""`every_n_train_steps=` and `compare_at_start=`: when the model is compared, with unchanged training."""

import math

import lightning as L
import pytest
import torch
from conftest import Net, dataset, loaders
from lightning.pytorch.callbacks import Callback, EarlyStopping, GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning_cka import CKAMonitor, compare_models
from torch import nn
from torch.utils.data import DataLoader
from training import (
    MARKS,
    EMAWeightAveraging,
    Endless,
    NoValidation,
    endless_loader,
    epochs_and_steps,
    needs_lightning_26,
    run,
    same_weights,
)

pytestmark = MARKS


def steps(monitor, name="initial"):
    found = epochs_and_steps(monitor, name)
    assert {epoch for epoch, _ in found} <= {None}
    return [step for _, step in found]


class TwoOptimizers(Net):
    """Two optimizers step in each batch, so that ``global_step`` grows by two."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.net, self.head)]


SETTINGS = {
    "several in an epoch": (3, {}, [3, 6, 9, 12, 15]),
    "fewer than epochs": (20, {"max_epochs": 6}, [20, 40]),
    "a list": ([0, 5, 6, 99], {}, [0, 5, 6]),
    "powers of two": ("log", {}, [0, 1, 2, 4, 8, 16]),
    "accumulated gradients": (2, {"accumulate_grad_batches": 3}, [2, 4, 6]),
    "max_steps": (5, {"max_epochs": -1, "max_steps": 12}, [5, 10]),
    "an endless stream": (5, {"max_epochs": -1, "max_steps": 12, "train": endless_loader()}, [5, 10]),
    "a stream that ends": (5, {"train": DataLoader(Endless(64), batch_size=16), "max_epochs": 3}, [5, 10]),
    "few batches": (2, {"limit_train_batches": 3}, [2, 4, 6]),
    "validation within epochs": (3, {"val_check_interval": 2}, [3, 6, 9, 12, 15]),
    "no validation": (4, {"limit_val_batches": 0, "own": True}, [4, 8, 12, 16]),
    "no validation step": (4, {"model": NoValidation, "own": True}, [4, 8, 12, 16]),
    "two optimizers": (6, {"model": TwoOptimizers}, [6, 12, 18, 24, 30]),
    "two optimizers that pass a step": ([5, 7], {"model": TwoOptimizers}, [6, 8]),
    "one batch": (100, {"fast_dev_run": True}, [1]),
    "three batches": (100, {"fast_dev_run": 3}, [3]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_training_is_unchanged_and_each_due_step_has_a_result(name):
    every, settings, expected = SETTINGS[name]
    own = DataLoader(dataset(seed=2), batch_size=16, shuffle=True) if settings.get("own") else None
    settings = {key: value for key, value in settings.items() if key != "own"}
    gradients = []

    class Gradients(Callback):
        """Look at the gradients after the monitor, also those that are accumulated for a later step."""

        def on_train_batch_end(self, trainer, module, *args):
            assert module.training
            assert torch.is_grad_enabled()
            gradients.append([p.grad.clone() for p in module.parameters() if p.grad is not None])

    monitor = CKAMonitor(["initial", "previous", "self"], num_samples=64, every_n_train_steps=every, dataloader=own)
    watched, fitted = run(monitor, Gradients(), **settings)
    with_monitor, gradients = gradients, []
    plain, _ = run(Gradients(), **settings)
    assert same_weights(plain, watched)
    assert len(gradients) == len(with_monitor) > 0
    for one, other in zip(gradients, with_monitor, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert steps(monitor) == steps(monitor, "self") == expected
    assert steps(monitor, "previous") == [step for step in expected if step]
    assert math.isfinite(fitted.callback_metrics["cka/initial/mean"])
    first = [monitor.results[name][expected[0] == 0 and name == "initial"].matrix for name in ("initial", "previous")]
    assert torch.equal(*first)  # The first comparison with "previous" is one with "initial".


class Rows(CSVLogger):
    """Keeps all rows, which the logger itself forgets when it has written them."""

    def __init__(self):
        super().__init__(".")
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append(dict(metrics) | {"step": step})
        super().log_metrics(metrics, step)


def test_values_reach_loggers_at_their_step_whatever_log_every_n_steps_is():
    logger = Rows()
    monitor = CKAMonitor(every_n_train_steps=3, compare_at_start=True, log_changes=True)
    run(monitor, logger=logger, log_every_n_steps=1000)
    found = {row["step"]: row for row in logger.rows if "cka/initial/mean" in row}
    assert list(found) == [0, 3, 6, 9, 12, 15]
    assert len([row for row in logger.rows if any(key.startswith("cka/") for key in row)]) == len(found)
    for result in monitor.results["initial"]:
        row = found[result.step]
        assert row["cka/initial/mean"] == result.mean()
        assert row["cka/initial/head"] == result.same_named()["head"]
        assert row["epoch"] == max(0, result.step - 1) // 8
        assert ("cka/initial/head_change" in row) == (result.step > 0)
    losses = [row["step"] for row in logger.rows if "val_loss" in row]
    assert losses == [7, 15]  # Lightning's own values stay at their steps.


def test_with_several_optimizers_loggers_count_batches_as_lightning_does():
    logger = Rows()
    monitor = CKAMonitor(every_n_train_steps=6)
    run(monitor, model=TwoOptimizers, logger=logger, max_epochs=1)
    assert steps(monitor) == [6, 12]
    assert [row["step"] for row in logger.rows if "cka/initial/mean" in row] == [3, 6]


def test_the_start_is_compared_with_everything_but_previous():
    reference = Net()
    probe = DataLoader(dataset(seed=2), batch_size=32)
    monitor = CKAMonitor(["initial", "previous", "self", reference], dataloader=probe, compare_at_start=True)
    model, _ = run(monitor)
    plain, _ = run()
    assert same_weights(model, plain)
    assert epochs_and_steps(monitor) == epochs_and_steps(monitor, "reference") == [(None, 0), (0, 7), (1, 15)]
    assert epochs_and_steps(monitor, "previous") == [(0, 7), (1, 15)]
    start = monitor.results["initial"][0]
    assert start.matrix.diagonal().tolist() == pytest.approx([1] * 4, abs=1e-12)
    assert start.mean_standard_error == pytest.approx(0, abs=1e-12)
    assert torch.equal(monitor.results["self"][0].matrix.diagonal(), torch.ones(4, dtype=torch.float64))
    L.seed_everything(3, workers=True, verbose=False)
    before = compare_models(Net(), reference, probe, progress_bar=False)
    assert torch.allclose(monitor.results["reference"][0].matrix, before.matrix, atol=1e-6)


def test_the_start_alone_before_epochs_that_log_their_own_first_step():
    """The first validation is at Lightning's step 0, too; the files of both are kept."""
    monitor = CKAMonitor(compare_at_start=True, dirpath="cka")
    run(monitor, max_epochs=1, val_check_interval=1, limit_train_batches=2)
    assert epochs_and_steps(monitor) == [(None, 0), (0, 0), (0, 1)]
    rows = monitor.to_rows()
    assert {(row["epoch"], row["step"]) for row in rows} == {(None, 0), (0, 0), (0, 1)}


@needs_lightning_26
def test_the_weights_in_training_are_compared_not_the_averaged_ones():
    kept = {}

    class Weights(Callback):
        def on_train_batch_end(self, trainer, module, *args):
            kept[trainer.global_step] = {name: value.clone() for name, value in module.state_dict().items()}

    probe = DataLoader(dataset(seed=2), batch_size=32)
    monitor = CKAMonitor(every_n_train_steps=5, dataloader=probe)
    run(EMAWeightAveraging(decay=0.9), monitor, Weights())
    plain = CKAMonitor(every_n_train_steps=5, dataloader=probe)
    run(plain)
    for one, other in zip(monitor.results["initial"], plain.results["initial"], strict=True):
        assert torch.equal(one.matrix, other.matrix)
    assert list(kept) == list(range(1, 17))


def test_a_step_that_fails_is_nan_and_the_next_one_is_not():
    calls = []

    def fails_once(module, batch):
        calls.append(1)
        if monitor._step == 6:
            raise MemoryError("full")
        return module(batch[0])

    monitor = CKAMonitor(["initial", "previous"], every_n_train_steps=3, on_error="warn", forward_fn=fails_once)
    with pytest.warns(UserWarning, match="the comparison at step 6 failed: .*full"):
        run(monitor)
    assert [math.isnan(result.mean()) for result in monitor.results["previous"]] == [False, True, False, False, False]


def test_an_exception_in_training_keeps_the_results_so_far():
    class Stops(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 7:
                raise KeyError("user")

    monitor = CKAMonitor(every_n_train_steps=3)
    with pytest.raises(KeyError):
        run(monitor, Stops())
    assert steps(monitor) == [3, 6]


def test_callbacks_find_a_value_by_their_first_look(tmp_path):
    key = "cka/initial/mean"
    checkpoint = ModelCheckpoint(tmp_path, monitor=key, mode="min", every_n_train_steps=4, save_top_k=-1)
    monitor = CKAMonitor(every_n_train_steps=4)
    run(monitor, checkpoint, EarlyStopping(key, patience=9), enable_checkpointing=True)
    means = [result.mean() for result in monitor.results["initial"]]
    assert [score.item() for score in checkpoint.best_k_models.values()] == pytest.approx(means, abs=1e-6)
    with pytest.raises(ValueError, match=rf"ModelCheckpoint looks for '{key}' from step 4 on, but .* from step 5 on"):
        run(CKAMonitor(every_n_train_steps=5), checkpoint, enable_checkpointing=True)
    run(CKAMonitor(every_n_train_steps=5, compare_at_start=True), checkpoint, enable_checkpointing=True)
    with pytest.raises(ValueError, match=r"EarlyStopping looks for .* from step 8 on, but .* from step 9 on"):
        run(CKAMonitor(every_n_train_steps=9), EarlyStopping(key))
    with pytest.raises(ValueError, match=r"from step 2 on, but .* from step 3 on"):
        run(CKAMonitor(every_n_train_steps=3), EarlyStopping(key), val_check_interval=2)
    with pytest.raises(ValueError, match=r"from step 8 on, but CKAMonitor logs it at the start only"):
        run(CKAMonitor(["previous"], every_n_train_steps=[0]), EarlyStopping("cka/previous/mean"))
    with pytest.raises(ValueError, match=r"which CKAMonitor does not log; it logs .*cka/initial/head"):
        run(CKAMonitor(every_n_train_steps=2), EarlyStopping("cka/initial/haed"))


def test_steps_that_training_never_reaches():
    with pytest.raises(ValueError, match=r"every_n_train_steps=17 would log nothing: training ends at step 16, before"):
        run(CKAMonitor(every_n_train_steps=17))
    with pytest.raises(ValueError, match=r"every_n_train_steps=\[13, 14\] would log nothing: training ends at step 12"):
        run(CKAMonitor(every_n_train_steps=[13, 14]), max_epochs=-1, max_steps=12)
    monitor = CKAMonitor(every_n_train_steps=17, compare_at_start=True)
    run(monitor)
    assert steps(monitor) == [0]
    monitor = CKAMonitor(every_n_train_steps=9)
    run(monitor, GradientAccumulationScheduler({0: 2, 1: 1}))
    assert steps(monitor) == [9]
    with pytest.warns(UserWarning, match=r"no results: training ended at step 8, .*\(every_n_train_steps=9\)"):
        run(CKAMonitor(every_n_train_steps=9), EarlyStopping("val_loss", stopping_threshold=100.0))


def test_validate_still_compares_and_has_no_step():
    monitor = CKAMonitor(["self"], every_n_train_steps=100, compare_at_start=True)
    model, fitted = run(monitor)
    fitted.validate(model, loaders()[1], verbose=False)
    assert epochs_and_steps(monitor, "self") == [(None, 0), (None, None)]
