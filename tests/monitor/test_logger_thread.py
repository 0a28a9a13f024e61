"""A slow logger does not hold training, and gets the figures in order."""

import threading
import time

import numpy as np
import pytest
from conftest import Net, loaders, trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning_cka import CKAMonitor
from lightning_cka.monitor import logger_thread
from lightning_cka.monitor.logger_thread import MAX_WAITING, LoggerThread

pytestmark = [
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    pytest.mark.usefixtures("_blank_figures"),
]


class Slow(Logger):
    """A logger whose images wait for an event."""

    name, version = "slow", "0"

    def __init__(self):
        super().__init__()
        self.may_go_on = threading.Event()
        self.images, self.threads = [], set()

    def log_hyperparams(self, params):
        pass

    def log_metrics(self, metrics, step=None):
        pass

    def log_image(self, key, images, step=None):
        self.may_go_on.wait(30)
        self.threads.add(threading.current_thread().name)
        self.images.append((key, step, np.asarray(images[0]).shape[-1]))


class EndOfTraining(Callback):
    """Lets the logger go on when the last batch of training has ended."""

    def __init__(self, logger):
        self.logger, self.waiting = logger, None

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            self.waiting = len(self.logger.images)
            self.logger.may_go_on.set()


def test_training_ends_while_the_logger_hangs_and_all_figures_arrive(tmp_path):
    slow, fast = Slow(), Slow()
    fast.may_go_on.set()
    watch = EndOfTraining(slow)
    monitor = CKAMonitor(["initial", "self"], dirpath=tmp_path / "cka")
    trainer(monitor, watch, logger=[slow, fast], max_epochs=3).fit(Net(), *loaders())
    assert watch.waiting == 0
    assert sorted(slow.images) == sorted(fast.images)
    assert len(slow.images) == 9
    for key in {key for key, _, _ in slow.images}:
        assert [step for name, step, _ in slow.images if name == key] == [7, 15, 23]
    assert slow.threads == {"cka-Slow"}


def test_a_logger_that_hangs_forever_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(logger_thread, "PATIENCE", 0.2)
    slow = Slow()
    monitor = CKAMonitor("initial", dirpath=tmp_path / "cka")
    with pytest.warns(UserWarning, match=r"Slow is too slow for the CKA figures, and lacks some: all are in .*cka$"):
        trainer(monitor, logger=slow, max_epochs=1).fit(Net(), *loaders())
    assert len(list((tmp_path / "cka" / "initial").glob("*.png"))) == 2
    slow.may_go_on.set()


def test_the_queue_is_bounded_and_drops_the_oldest():
    may_go_on, is_waiting, done = threading.Event(), threading.Event(), []
    thread = LoggerThread("test")
    assert thread.put(lambda: (is_waiting.set(), may_go_on.wait(30)), "")
    is_waiting.wait(30)
    kept = [thread.put(lambda number=number: done.append(number), "") for number in range(MAX_WAITING + 2)]
    assert kept == [True] * MAX_WAITING + [False] * 2
    may_go_on.set()
    assert thread.finish() == 0
    assert done == list(range(2, MAX_WAITING + 2))


def test_errors_are_returned_and_the_thread_can_be_used_again():
    thread = LoggerThread("test")
    for _ in range(2):
        thread.put(lambda: 1 / 0, "it failed")
        assert thread.finish() == 0
        ((failure, error),) = thread.take_errors()
        assert (failure, type(error)) == ("it failed", ZeroDivisionError)
    assert thread.take_errors() == []
    time.sleep(0)
