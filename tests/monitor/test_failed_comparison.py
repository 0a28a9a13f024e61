"""`on_error="warn"`: a comparison that fails during training gives ``nan`` on all processes."""

import math

import pytest
import torch
from conftest import dataset, run_script
from lightning_cka import CKAMonitor
from torch.utils.data import DataLoader
from training import MARKS, epochs_and_steps, run, same_weights

pytestmark = MARKS


class Flaky:
    """A forward function that fails in the comparison of some epochs."""

    def __init__(self, error, *epochs):
        self.error, self.epochs = error, epochs

    def __call__(self, module, batch):
        if module.trainer.validating and module.trainer.current_epoch in self.epochs:
            raise self.error
        return module(batch[0])


class FlakyData(torch.utils.data.Dataset):
    """A dataset that cannot be read at some time."""

    is_broken = False

    def __len__(self):
        return 64

    def __getitem__(self, index):
        if self.is_broken:
            raise OSError("the file server does not answer")
        return dataset(64)[index]


@pytest.mark.parametrize("error", [MemoryError("full"), ValueError("shape"), torch.OutOfMemoryError("CUDA")])
def test_the_results_of_that_epoch_are_nan(error):
    plain, _ = run(max_epochs=4)
    monitor = CKAMonitor(["initial", "previous", "self", 1, 2], forward_fn=Flaky(error, 1), on_error="warn")
    failed = f"comparison at step 15 of epoch 1 failed: {type(error).__name__}: |'epoch-1' .* or its comparison failed"
    with pytest.warns(UserWarning, match=failed) as caught:
        model, fitted = run(monitor, max_epochs=4)
    assert same_weights(plain, model)
    assert len([each for each in caught if "on_error='warn'" in str(each.message)]) == 1
    for name in ("initial", "previous", "self"):
        assert [math.isnan(r.mean()) for r in monitor.results[name]] == [False, True, False, False]
    failed = monitor.results["initial"][1]
    assert (failed.epoch, failed.step, failed.layers) == (1, 15, monitor.results["initial"][0].layers)
    assert failed.matrix.isnan().all()
    assert failed.reference_name == "initial"
    # Epoch 1 has no bank. "previous" is then the last epoch that has one.
    assert "epoch-1" not in monitor.results
    assert [r.epoch for r in monitor.results["epoch-2"]] == [2, 3]
    assert "cka/initial/mean" in fitted.callback_metrics


def test_each_run_warns_once():
    monitor = CKAMonitor("initial", forward_fn=Flaky(MemoryError(), 1, 2), on_error="warn")
    with pytest.warns(UserWarning, match="of epoch 1 failed: MemoryError") as caught:
        run(monitor, max_epochs=4)
    assert len([each for each in caught if "on_error" in str(each.message)]) == 1
    assert [math.isnan(r.mean()) for r in monitor.results["initial"]] == [False, True, True, False]


def test_a_dataset_that_fails_for_a_while():
    data = FlakyData()

    class Monitor(CKAMonitor):
        def on_validation_batch_end(self, trainer, *args, **kwargs):
            data.is_broken = trainer.current_epoch == 1
            super().on_validation_batch_end(trainer, *args, **kwargs)
            data.is_broken = False

    loader = DataLoader(data, batch_size=16, shuffle=True)
    monitor = Monitor("initial", dataloader=loader, on_error="warn")
    with pytest.warns(UserWarning, match="the file server does not answer"):
        run(monitor, max_epochs=3)
    assert [math.isnan(r.mean()) for r in monitor.results["initial"]] == [False, True, False]


def test_by_default_training_ends():
    with pytest.raises(MemoryError):
        run(CKAMonitor("initial", forward_fn=Flaky(MemoryError(), 1)), max_epochs=3)


def test_the_check_before_training_raises():
    def broken(module, batch):
        raise MemoryError("at the start")

    monitor = CKAMonitor("initial", forward_fn=broken, on_error="warn")
    with pytest.raises(ValueError, match="it raised MemoryError: at the start"):
        run(monitor)
    assert epochs_and_steps(monitor) == []


def test_ctrl_c_is_no_failed_comparison():
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(CKAMonitor("initial", forward_fn=Flaky(KeyboardInterrupt(), 1), on_error="warn"), max_epochs=3)


def test_an_unknown_value_raises():
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'warn', but is 'ignore'"):
        CKAMonitor(on_error="ignore")


@pytest.mark.parametrize("fault", ["forward", "kernel"])
def test_one_of_two_processes_fails(tmp_path, fault):
    """Both have the same results, and no process waits for the other."""
    run_script("on_error_script.py", tmp_path, fault)
    one, other = ((tmp_path / f"results-{rank}").read_text().splitlines() for rank in (0, 1))
    assert one[1] == other[1]
    assert "nan" in one[1]
    assert other[0] == "[]"
    assert one[0].count("MemoryError: no memory is left") == 1
