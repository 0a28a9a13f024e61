"""When figures are drawn: training is hardly slowed down, and in the end nothing is missing."""

import signal
import threading

import numpy as np
import pytest
from conftest import Net, loaders, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_cka import CKAMonitor, plot_cka
from lightning_cka.figures.pictures import PRINT_DPI, pixels_of, png, render
from lightning_cka.monitor import drawing_budget, figure_queue, logger_thread
from lightning_cka.monitor.figure_queue import FigureQueue
from lightning_cka.monitor.loggers import LoggerOutput
from lightning_cka.monitor.output_errors import OutputErrors
from lightning_cka.monitor.warn_once import WarnOnce
from lightning_cka.plotting import plot_drift
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)")

SMALL = png(np.zeros((2, 2, 3), dtype=np.uint8))


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self):
        self.now = self.drawing = 0.0

    def monotonic(self):
        return self.now

    def thread_time(self):
        return self.drawing


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(drawing_budget, "time", found)
    monkeypatch.setattr(drawing_budget, "SHARE", 0.1)
    return found


class Logger:
    """A third-party logger that notes the keys and steps of images."""

    def __init__(self):
        self.images = []

    def log_image(self, key, images, step=None):
        self.images.append((key, step))


@pytest.fixture
def logger():
    return Logger()


@pytest.fixture
def queue(tmp_path, logger, clock):
    made = FigureQueue(LoggerOutput([logger], OutputErrors(tmp_path, WarnOnce())))
    yield made
    made.finish()


class Drawing:
    """Submits figures that take one second each, and notes which are drawn."""

    def __init__(self, queue, clock, folder):
        self.queue, self.clock, self.folder, self.drawn = queue, clock, folder, []

    def submit(self, step, *names):
        def draw(name):
            self.clock.drawing += 1.0
            self.drawn.append((name, step))
            return SMALL

        figures = {name: (lambda name=name: draw(name), self.folder / f"{name}.png") for name in names}
        self.queue.submit("cka/", figures, step)
        self.settle()

    def settle(self):
        """Wait until the thread has nothing to do."""
        with self.queue._changed:
            assert self.queue._changed.wait_for(lambda: not self.queue._is_running, 60)

    def pass_time(self, seconds):
        self.clock.now += seconds
        self.queue.deliver(wait=False)
        self.settle()


@pytest.fixture
def drawing(queue, clock, tmp_path):
    return Drawing(queue, clock, tmp_path)


def test_drawing_takes_a_tenth_of_the_time(drawing):
    drawing.submit(0, *"abc")
    assert drawing.drawn == [("a", 0)]  # Nothing was spent yet.
    drawing.pass_time(9.9)
    assert drawing.drawn == [("a", 0)]
    drawing.pass_time(0.2)
    assert drawing.drawn == [("a", 0), ("b", 0)]
    drawing.pass_time(200)  # As much as it was allowed to, not more.
    assert drawing.drawn == [("a", 0), ("b", 0), ("c", 0)]


def test_a_figure_that_is_overwritten_before_it_is_drawn_is_left_out_and_the_last_one_is_drawn(drawing, queue, logger):
    drawing.submit(0, "heatmap-0", "drift")
    drawing.submit(1, "heatmap-1", "drift")
    drawing.submit(2, "heatmap-2", "drift")
    queue.deliver(wait=True)
    assert drawing.drawn == [("heatmap-0", 0), ("drift", 2), ("heatmap-1", 1), ("heatmap-2", 2)]
    queue.finish()
    assert logger.images == [(f"cka/{name}", step) for name, step in drawing.drawn]
    assert {path.name for path in drawing.folder.glob("*.png")} == {
        "drift.png",
        *(f"heatmap-{i}.png" for i in range(3)),
    }


def test_while_there_is_time_each_one_is_drawn(drawing, queue):
    for step in range(3):
        drawing.submit(step, "drift")
        drawing.pass_time(100)
    assert drawing.drawn == [("drift", step) for step in range(3)]


def test_training_ends_without_a_long_wait(drawing, queue, clock):
    """More than about five seconds of drawing are not put off, whatever the share is."""
    for step in range(20):
        drawing.submit(step, f"heatmap-{step}")
    assert 20 - 7 <= len(drawing.drawn) < 20


def test_a_wait_at_the_end_is_announced(drawing, queue, monkeypatch):
    told = []
    monkeypatch.setattr(figure_queue, "rank_zero_info", told.append)
    drawing.submit(0, "a", "b")
    queue.deliver(wait=True)
    assert told == []
    drawing.submit(1, *"abcde")
    queue.deliver(wait=True)
    assert told == ["CKA: drawing 5 figures that training did not wait for, in about 5 s"]


def test_training_waits_if_drawing_is_slower_than_training(drawing, queue, clock):
    """Otherwise more and more results would wait."""
    may_go_on, waits = threading.Event(), []

    def draw():
        waits.append(may_go_on.wait(60))
        clock.drawing += 1.0
        return SMALL

    drawing.submit(0, "a")
    threading.Timer(0.2, may_go_on.set).start()
    queue.submit("cka/", {str(i): (draw, drawing.folder / f"{i}.png") for i in range(30)}, 1)
    assert waits
    assert len(queue._waiting) <= 10


def test_files_that_wait_for_the_loggers_are_few(drawing, queue, clock):
    clock.now = 1e9
    figures = {str(i): (lambda: SMALL, drawing.folder / f"{i}.png") for i in range(40)}
    queue.submit("cka/", figures, 0)
    drawing.settle()
    assert len(queue._drawn) == figure_queue._MOST_DRAWN
    queue.deliver(wait=True)
    assert len(list(drawing.folder.glob("*.png"))) == 40


def test_a_slow_logger_gets_all_at_the_end(drawing, queue, logger, monkeypatch):
    """Though its own queue has room for fewer."""
    monkeypatch.setattr(logger_thread, "MAX_WAITING", 3)
    may_go_on = threading.Event()
    original = logger.log_image
    logger.log_image = lambda *args, **kwargs: (may_go_on.wait(60), original(*args, **kwargs))
    queue.submit("cka/", {str(i): (lambda: SMALL, drawing.folder / f"{i}.png") for i in range(30)}, 0)
    threading.Timer(0.2, may_go_on.set).start()
    queue.finish()
    assert [key for key, _ in logger.images] == [f"cka/{i}" for i in range(30)]


@pytest.mark.parametrize("error", [ValueError("no figure"), OSError(28, "disk full")])
def test_a_figure_that_cannot_be_drawn_warns_and_the_others_are_drawn(drawing, queue, logger, error):
    def fail():
        raise error

    figures = {"bad": (fail, drawing.folder / "bad.png"), "good": (lambda: SMALL, drawing.folder / "good.png")}
    with pytest.warns(UserWarning, match=f"training continues: {type(error).__name__}"):
        [queue.submit("cka/", figures, 3), queue.finish()]  # Either may warn.
    assert logger.images == [("cka/good", 3)]


def test_a_figure_that_ends_the_program_does_not_let_it_wait_for_ever(drawing, queue):
    def leave():
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        [queue.submit("cka/", {"bad": (leave, drawing.folder / "bad.png")}, 0), queue.finish()]  # Either may raise.


def test_other_work_comes_before_the_figures_that_wait(drawing, queue):
    drawing.submit(0, *"abc")
    assert queue.start(lambda: drawing.drawn.append("other")).result(60) is None
    assert drawing.drawn == [("a", 0), "other"]
    with pytest.raises(ZeroDivisionError):
        queue.start(lambda: 1 / 0).result(60)


@pytest.fixture
def _signals():
    """Restore the handler: Lightning ignores Ctrl+C after the first one."""
    found = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, found)


class Fails(Callback):
    def __init__(self, error):
        self.error = error

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 3:
            raise self.error


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("error", [None, RuntimeError("a fault"), KeyboardInterrupt()])
def test_a_run_without_time_for_drawing_has_all_heatmaps_and_the_last_drift_map(tmp_path, monkeypatch, error):
    monkeypatch.setattr(drawing_budget, "SHARE", 0.0)
    seed_everything(0, verbose=False)
    logger = TensorBoardLogger(tmp_path, name="tb")
    monitor = CKAMonitor(["initial", "self"], dirpath=tmp_path / "cka")
    used = trainer(monitor, *([Fails(error)] if error else []), logger=logger, max_epochs=3 if error is None else 9)
    if error is None:
        used.fit(Net(), *loaders())
    else:
        with pytest.raises((SystemExit, RuntimeError)):
            used.fit(Net(), *loaders())
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    for name, results in monitor.results.items():
        logged = events.Images(f"cka/{name}/heatmap")
        assert [image.step for image in logged] == [7, 15, 23]
        for image, result in zip(logged, results, strict=True):
            assert np.array_equal(pixels_of(image.encoded_image_string), render(plot_cka(result)[0], PRINT_DPI))
    drift = events.Images("cka/initial/drift")
    assert len(drift) < 3
    assert drift[-1].step == 23
    last = render(plot_drift(monitor.results["initial"])[0], PRINT_DPI)
    assert np.array_equal(pixels_of((tmp_path / "cka" / "initial" / "drift.png").read_bytes()), last)
