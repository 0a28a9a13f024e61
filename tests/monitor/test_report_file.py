"""`report.html` of a run: when it is written, what is in it, and what it costs training."""

import base64
import json
import re
import threading
import zlib
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import Net, loaders, trainer
from fitting import fit
from lightning.pytorch.callbacks import EarlyStopping
from lightning_cka import CKAMonitor
from lightning_cka.monitor import report_file

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?.*layers (that|whose)"),
]


def payload(path="cka/report.html"):
    text = re.search(r'id="lightning-cka">(.*?)</script>', Path(path).read_text(), re.DOTALL)[1]
    return json.loads(text)


def epochs(path="cka/report.html"):
    """Return the epochs of each reference in a page."""
    (run,) = payload(path)["runs"]
    return {
        series["reference"]: [epoch for block in series["blocks"] for epoch in block["epochs"]]
        for series in run["series"]
    }


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, and a thread that has always finished when it is asked."""
    found = Clock()
    monkeypatch.setattr(report_file, "time", found)
    original = report_file.FigureQueue.start

    def start(queue, action):
        future = original(queue, action)
        future.exception()
        return future

    monkeypatch.setattr(report_file.FigureQueue, "start", start)
    return found


def written(monkeypatch):
    """Return the list of the epochs of each page that is written."""
    pages = []
    original = report_file.write_page

    def write(path, content):
        original(path, content)
        pages.append(epochs(path))

    monkeypatch.setattr(report_file, "write_page", write)
    return pages


def test_the_first_comparison_and_the_end_write_it(clock, monkeypatch):
    pages = written(monkeypatch)
    fit(CKAMonitor(["initial", "previous"], dirpath="cka"), max_epochs=4)
    assert [page["initial"] for page in pages] == [[0], [0, 1, 2, 3]]
    assert pages[-1] == {name: [0, 1, 2, 3] for name in ("initial", "previous")}
    assert payload()["title"].startswith("CKA of ")


def test_it_is_written_again_after_30_seconds_also_between_comparisons(clock, monkeypatch):
    pages = written(monkeypatch)

    class Wait(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if trainer.current_epoch == 2 and batch_idx == 2:
                assert pages[-1]["initial"] == [0]
                clock.now += 30
            if trainer.current_epoch == 2 and batch_idx == 4:
                assert pages[-1]["initial"] == [0, 1]

    fit(CKAMonitor(dirpath="cka"), Wait(), max_epochs=4)
    assert [page["initial"] for page in pages] == [[0], [0, 1], [0, 1, 2, 3]]


def test_nothing_new_is_not_written_again(clock, monkeypatch):
    pages = written(monkeypatch)

    class Wait(L.Callback):
        def on_train_batch_start(self, *_args):
            clock.now += 30

    fit(CKAMonitor(dirpath="cka", every_n_epochs=2), Wait(), max_epochs=4)
    assert [page["initial"] for page in pages] == [[1], [1, 3]]


class Fails(L.Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 3:
            raise RuntimeError("no more")


def test_an_exception_leaves_all_results_in_it(clock):
    with pytest.raises(RuntimeError, match="no more"):
        fit(CKAMonitor(dirpath="cka"), Fails(), max_epochs=9)
    assert epochs() == {"initial": [0, 1, 2]}


def test_early_stopping_leaves_all_results_in_it(clock):
    stop = EarlyStopping("cka/initial/mean", patience=1, mode="max")
    _, used = fit(CKAMonitor(dirpath="cka"), stop, max_epochs=9)
    assert used.current_epoch < 9
    assert epochs() == {"initial": list(range(used.current_epoch))}


def test_restored_results_are_in_it(clock):
    _, used = fit(CKAMonitor(dirpath="cka"), max_epochs=2)
    used.save_checkpoint("a.ckpt")
    again = trainer(CKAMonitor(dirpath="cka"), max_epochs=4)
    again.fit(Net(), *loaders(), ckpt_path="a.ckpt")
    assert epochs() == {"initial": [0, 1, 2, 3]}


def test_a_checkpoint_with_nothing_left_to_train_gets_its_report(clock):
    _, used = fit(CKAMonitor(dirpath="cka"), max_epochs=2)
    used.save_checkpoint("a.ckpt")
    Path("cka/report.html").unlink()
    trainer(CKAMonitor(dirpath="cka"), max_epochs=2).fit(Net(), *loaders(), ckpt_path="a.ckpt")
    assert epochs() == {"initial": [0, 1]}


def test_a_second_fit_goes_on_in_it(clock):
    model, used = fit(CKAMonitor(dirpath="cka"), max_epochs=1)
    used.fit_loop.max_epochs = 3
    used.fit(model, *loaders())
    assert epochs() == {"initial": [0, 1, 2]}


def test_that_of_an_earlier_run_is_moved_aside(clock):
    for count in (1, 2):
        fit(CKAMonitor(dirpath="cka"), max_epochs=count)
    assert epochs("cka/earlier-1/report.html") == {"initial": [0]}
    assert epochs() == {"initial": [0, 1]}


def test_steps_and_measures_are_in_it(clock):
    fit(CKAMonitor(dirpath="cka", kernel=["linear", "rbf"], every_n_train_steps=4), max_epochs=1)
    (run,) = payload()["runs"]
    assert [(each["measure"], each["blocks"][0]["steps"]) for each in run["series"]] == [
        ("linear CKA", [4, 8]),
        ("rbf CKA", [4, 8]),
    ]


def test_validate_and_fast_dev_run_leave_it_alone(clock):
    monitor = CKAMonitor(dirpath="cka")
    fit(monitor, fast_dev_run=True)
    assert not Path("cka/report.html").exists()
    model, used = fit(monitor, max_epochs=1)
    before = Path("cka/report.html").read_bytes()
    used.validate(model, loaders()[1], verbose=False)
    assert len(monitor.results["initial"]) == 2
    assert Path("cka/report.html").read_bytes() == before


def test_training_does_not_wait_for_it(monkeypatch):
    goes_on, waiting = threading.Event(), []
    original = report_file.write_page

    def write(path, content):
        waiting.append(goes_on.wait(60))
        original(path, content)

    class GoOn(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if trainer.current_epoch == 3 and batch_idx == 0:
                assert waiting == []
                goes_on.set()

    monkeypatch.setattr(report_file, "write_page", write)
    fit(CKAMonitor(dirpath="cka"), GoOn(), max_epochs=4)
    assert waiting == [True, True]
    assert epochs() == {"initial": [0, 1, 2, 3]}


def test_a_page_that_cannot_be_written_warns_once_and_training_goes_on(monkeypatch):
    def fail(*_):
        raise OSError(28, "disk full")

    monkeypatch.setattr(report_file, "write_page", fail)
    monkeypatch.setattr(report_file, "SECONDS", 0.0)
    with pytest.warns(UserWarning, match="could not be written, training continues: OSError.*disk full") as caught:
        _, used = fit(CKAMonitor(dirpath="cka"), max_epochs=3)
    assert used.current_epoch == 3
    assert sum("disk full" in str(each.message) for each in caught) == 1
    assert not Path("cka/report.html").exists()


def test_a_reference_called_like_it_gets_another_name(clock):
    with pytest.raises(ValueError, match=r"'Report.html' in reference= is the name of a file or folder"):
        CKAMonitor({"Report.html": "initial"})
    torch.save(Net().state_dict(), "report.html.pt")
    monitor = CKAMonitor(["report.html.pt"], dirpath="cka")
    fit(monitor, max_epochs=1)
    assert set(monitor.results) == {"report.html-2"}
    assert Path("cka/report.html").is_file()


def test_numbers_of_a_run_are_in_it(clock):
    monitor = CKAMonitor(dirpath="cka")
    fit(monitor, max_epochs=1)
    (block,) = payload()["runs"][0]["series"][0]["blocks"]
    planes = zlib.decompress(base64.b64decode(block["values"][1:]))
    count = len(planes) // 4
    folded = [sum(planes[place + plane * count] << 8 * plane for plane in range(4)) for place in range(count)]
    shown = [(number >> 1) ^ -(number & 1) for number in folded]
    assert shown == [round(1e4 * value) for value in monitor.results["initial"][0].matrix.ravel().tolist()]
