"""Faults: all state is restored, no process hangs, and errors of files and loggers do not stop training."""

import errno
import os
import random
import re
import resource
import signal
import uuid
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import Net, loaders, run_script, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning_cka import CKAMonitor, CKAResult
from notes import Notes
from torch import nn

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training"),
]


HAPPENED = Notes()
"""Keys of faults that have occurred."""


class Fault:
    """A fault that occurs once, in the second epoch."""

    def __init__(self, kind):
        self.kind, self.key = kind, uuid.uuid4()

    @property
    def happened(self):
        return self.key in HAPPENED.all()

    def happen(self, epoch):
        if epoch != 1 or self.happened:
            return
        HAPPENED.put(self.key)
        if self.kind is SIGTERMException:
            assert signal.getsignal(signal.SIGTERM) not in (
                signal.SIG_DFL,
                None,
            )  # The Trainer has installed its handler.
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            raise self.kind("a fault")


class Faulty(Net):
    """A network that fails at a given place."""

    def __init__(self, place, fault):
        super().__init__()
        self.place, self.fault = place, fault
        self.head.eval()  # Another mode than that of the whole model.

    def _reach(self, place):
        if self.place == place:
            self.fault.happen(self.current_epoch)

    def training_step(self, batch, batch_idx):
        if batch_idx == 3:
            self._reach("training_step")
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        if batch_idx == 3:
            self._reach("validation_step")
        super().validation_step(batch, batch_idx)


class FaultWithoutMonitor(Callback):
    """Fails where the monitor would show the probe set; used for runs without a monitor."""

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            pl_module._reach("pass")


class Watch(Callback):
    """Records the state at an exception."""

    def on_exception(self, trainer, module, exception):
        self.found = {
            "exception": type(exception),
            "stage": str(trainer.state.stage),
            "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
            "autocast": torch.is_autocast_enabled("cpu"),
            "stance": torch._dynamo.eval_frame._stance.stance,
            "modes": [m.training for m in module.modules()],
            "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in module.modules()],
            "attributes": sorted(vars(module)),
            "draws": (torch.rand(()).item(), random.random(), np.random.rand()),
        }


@pytest.fixture
def _signals():
    """Restore the handler: Lightning ignores Ctrl+C after the first one."""
    found = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, found)


@pytest.mark.usefixtures("_without_figures", "_signals")
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SIGTERMException])
@pytest.mark.parametrize("place", ["training_step", "validation_step", "pass"])
def test_after_a_fault_the_state_is_the_same_as_without_the_callback(place, kind):
    def run(*, with_monitor):
        seed_everything(3, workers=True, verbose=False)
        model, watch = Faulty(place, Fault(kind)), Watch()
        seen = 0

        def forward_fn(module, batch):
            nonlocal seen
            seen += module.current_epoch == 1
            if seen == 5:  # Of 8 probe batches.
                module._reach("pass")
            return module(batch[0])

        callback = FaultWithoutMonitor()
        if with_monitor:
            callback = CKAMonitor(["initial", "previous", "self"], forward_fn=forward_fn)
        with pytest.raises(SystemExit if kind is KeyboardInterrupt else kind):
            trainer(callback, watch, max_epochs=4).fit(model, *loaders())
        assert model.fault.happened
        return model, watch.found, callback

    plain, expected, _ = run(with_monitor=False)
    model, found, monitor = run(with_monitor=True)
    assert found == expected
    assert found["exception"] is kind
    assert found["stance"] == "default"
    assert not any(map(sum, found["hooks"]))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())
    assert [result.epoch for result in monitor.results["initial"]] == ([0, 1] if _reached(place, kind) else [0])
    # Another fit() with the same model and monitor works.
    again = trainer(monitor)
    again.fit(model, *loaders())
    assert [result.epoch for result in monitor.results["previous"]] == [0, 1]
    assert "cka/previous/mean" in again.callback_metrics


def _reached(place, kind):
    """Whether the second epoch is still compared: Lightning handles SIGTERM between batches only."""
    return place == "pass" and kind is SIGTERMException


def fit(monitor, model=None, **kwargs):
    seed_everything(3, workers=True, verbose=False)
    model = Net() if model is None else model
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(*([monitor] if monitor else []), **kwargs).fit(model, *loaders())
    return model, [str(w.message) for w in caught if "training continues" in str(w.message)]


def assert_unharmed(model, monitor):
    """Assert that training and results are complete."""
    plain, _ = fit(None)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())
    assert [result.epoch for result in monitor.results["initial"]] == [0, 1]


@contextmanager
def small_files():
    """Limit files to 1000 bytes: a write fails half way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def nobody():
    """Become user "nobody", because root can write to any folder."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@contextmanager
def full_disk():
    def fail(_file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_cka.runtime.files.os.fsync", fail)
        yield


@pytest.mark.parametrize(
    ("condition", "cause"),
    [
        (small_files, r"OSError: \[Errno 27\] File too large"),
        (nobody, r"PermissionError: \[Errno 13\] Permission denied: '.*folder.*'"),
        (full_disk, r"OSError: \[Errno 28\] No space left on device"),
    ],
)
def test_training_continues_if_files_cannot_be_written(tmp_path, condition, cause):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o500)
    monitor = CKAMonitor(["initial", "previous"], dirpath=folder, trajectory=True)
    with condition():
        model, messages = fit(monitor)
    assert_unharmed(model, monitor)
    assert list(folder.rglob("*.*")) == []  # No partial file is left.
    what = ["CKA figures or files could not be written", "a bank could not be written, resuming will lack it"]
    if condition is nobody:  # This user cannot list the folder, either.
        what.append("files of an earlier run could not be moved aside")
    for message, begin in zip(sorted(messages), what, strict=True):
        assert message.startswith(f"{begin}, training continues: ")
        assert message.endswith(f"; the folder is {folder}")
        assert re.search(cause, message)


@pytest.mark.usefixtures("_blank_figures")
def test_all_other_files_are_written_if_some_fail(tmp_path):
    """Folders have the names of two of the files."""
    (tmp_path / "initial" / "drift.png").mkdir(parents=True)
    (tmp_path / "initial" / "epoch=000-step=000007.json").mkdir()
    monitor = CKAMonitor(dirpath=tmp_path)
    model, messages = fit(monitor)
    assert_unharmed(model, monitor)
    assert len(messages) == 1
    assert "IsADirectoryError" in messages[0]
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == [
        "banks/initial.safetensors",
        "history.jsonl",
        "initial-evolution.gif",
        "initial.csv",
        "initial/epoch=001-step=000015.json",
        "initial/heatmap-epoch=000-step=000007.png",
        "initial/heatmap-epoch=001-step=000015.png",
        "report.html",
    ]
    assert torch.equal(CKAResult.load(tmp_path / files[4]).matrix, monitor.results["initial"][1].matrix)


def test_an_error_in_a_figure_does_not_stop_training_or_other_figures(tmp_path, monkeypatch):
    def fail(_result):
        raise ZeroDivisionError("in matplotlib\nat length")

    monkeypatch.setattr("lightning_cka.figures.heatmap_series.plot_cka", fail)
    monitor = CKAMonitor(dirpath=tmp_path)
    model, messages = fit(monitor)
    assert_unharmed(model, monitor)
    what = "CKA figures or files could not be written, training continues: ZeroDivisionError: in matplotlib"
    assert messages == [f"{what}; the folder is {tmp_path}"]
    assert {path.name for path in (tmp_path / "initial").glob("*.png")} == {"drift.png"}


@pytest.mark.filterwarnings("ignore:Glyph .* missing from")
def test_names_with_dollar_signs_and_backslashes_are_drawn_as_text(tmp_path):
    """Names of layers and checkpoints may have any characters, which matplotlib must not parse as formulas."""

    class Named(Net):
        def __init__(self):
            super().__init__()
            names = [r"a$\frac$", "x_$^y_", "b{c_{", "層", "$" * 90]
            self.more = nn.ModuleDict({name: nn.Linear(16, 16) for name in names})

        def forward(self, x):
            x = self.net(x)
            for layer in self.more.values():
                x = layer(x)
            return self.head(x)

    torch.save(Named().state_dict(), tmp_path / r"$\sqrt$_1.pt")
    monitor = CKAMonitor(["initial", tmp_path / r"$\sqrt$_1.pt"], "more.*", dirpath=tmp_path / "cka", trajectory=True)
    _, messages = fit(monitor, Named())
    assert messages == []
    assert {path.name for path in (tmp_path / "cka" / monitor.references[1].name).glob("*.png")} == {
        "drift.png",
        "heatmap-epoch=000-step=000007.png",
        "heatmap-epoch=001-step=000015.png",
    }
    assert len(list((tmp_path / "cka" / "trajectory").glob("*.png"))) == 7


def run(tmp_path, fault):
    """Run two processes, one of them with a fault, and wait for both."""
    return run_script("fault_script.py", tmp_path, fault, check=False, timeout=120)


@pytest.mark.parametrize("place", ["training_step", "pass"])
def test_an_exception_in_one_of_two_processes_ends_both(tmp_path, place):
    process = run(tmp_path, place)
    assert process.returncode != 0
    assert "a fault of process 1" in process.stderr
    assert not list(tmp_path.glob("done-*"))


def test_sigterm_to_the_first_of_two_processes_ends_both(tmp_path):
    process = run(tmp_path, "sigterm in pass")
    assert not list(tmp_path.glob("done-*"))
    assert sorted(path.name for path in tmp_path.glob("ended-*")) == ["ended-0", "ended-1"], process.stderr[-3000:]
    assert [path.read_text() for path in tmp_path.glob("ended-*")] == ["SIGTERMException, no hooks"] * 2


def test_two_processes_continue_if_the_first_cannot_write_or_log(tmp_path):
    process = run(tmp_path, "output")
    assert process.returncode == 0, process.stderr[-3000:]
    assert "Wrong could not log the CKA images, training continues: RuntimeError: a fault" in process.stderr
    assert "CKA figures or files could not be written, training continues: FileExistsError" in process.stderr
    assert [path.read_text() for path in tmp_path.glob("done-*")] == ["2 results"] * 2
