"""A small network, its data and a Trainer for all tests."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import warnings
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from zlib import crc32

# Several test processes share the cores, so each gets one thread. torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.append(str(Path(__file__).parent / "scripts"))  # Some tests run a script in their own process.

import forked_scripts
import lightning as L
import pytest
import torch
from lightning.fabric.utilities import registry
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Forwards(nn.Module):
    """A wrapper as people write it: it passes attributes on."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


class Net(L.LightningModule):
    """A classifier with batch norm and dropout: 8 inputs, 3 classes."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, width), nn.ReLU()
        )
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.net(x))

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def dataset(n: int = 128, seed: int = 0) -> TensorDataset:
    """Return n random samples (8,) with random labels."""
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(n, 8, generator=generator), torch.randint(0, 3, (n,), generator=generator))


def loaders(batch_size: int = 16, **kwargs):
    """Return a training loader and a validation loader of 128 samples each."""
    return (
        DataLoader(dataset(seed=1), batch_size=batch_size, shuffle=True, **kwargs),
        DataLoader(dataset(seed=2), batch_size=batch_size, **kwargs),
    )


def trainer(*callbacks, **kwargs) -> L.Trainer:
    """Return a quiet Trainer on the CPU, for two epochs unless `max_epochs` is given."""
    defaults = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": list(callbacks),
    }
    return L.Trainer(**(defaults | kwargs))


def run_script(name, folder, *args, check=True, timeout=240, fresh=False):
    """Run a script of ``tests/scripts`` in a new process. A fresh one has imported nothing, which takes longer."""
    command = [Path(__file__).parent / "scripts" / name, *map(str, args)]
    if fresh:
        options = {"capture_output": True, "text": True, "timeout": timeout}
        process = subprocess.run([sys.executable, *command], cwd=folder, **options)
    else:
        process = forked_scripts.run(command, folder, os.environ, timeout)
    if check:
        assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]
    return process


def cli_config(**arguments):
    """Return a configuration of LightningCLI, as YAML, that trains one epoch with a CKAMonitor of these arguments."""
    callback = {"class_path": "lightning_cka.CKAMonitor", "init_args": arguments}
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    return json.dumps({"trainer": {"max_epochs": 1, **quiet, "callbacks": [callback]}})


def pytest_xdist_auto_num_workers():
    """Use one process more than there are cores: some tests wait for a browser, a server or another process."""
    return os.cpu_count() + 1


def pytest_collection_finish():
    """Leave the objects of imported modules out of garbage collections, which Lightning's tuners often start."""
    gc.collect()
    gc.freeze()


def draw_nothing(patch):
    """Draw no figures: drawing takes most of a test's time."""
    patch.setattr("lightning_cka.monitor.run_output.log_figures", lambda *_args: [])
    patch.setattr("lightning_cka.monitor.run_output.measures_figure", lambda *_args: {})
    patch.setattr("lightning_cka.monitor.run_output.trajectory_figures", lambda *_args: {})
    patch.setattr("lightning_cka.monitor.run_end.rank_figure", lambda *_args: {})
    patch.setattr("lightning_cka.monitor.run_output.write_summary", lambda *_args: None)


@pytest.fixture
def _without_figures(monkeypatch):
    draw_nothing(monkeypatch)


@contextmanager
def quietly():
    """Draw no figures and ignore warnings, for a fixture that trains once for several tests."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        draw_nothing(patch)
        warnings.simplefilter("ignore")
        yield


def draw_blank(patch):
    """Write and log small pictures instead of figures: one of another colour for each file."""
    from lightning_cka.monitor import figure_queue

    draw = figure_queue._draw

    def draw_one(figure):
        colour = f"#{crc32(bytes(figure.path)) & 0xFFFFFF:06x}"
        return draw(figure._replace(draw=lambda: Figure((0.5, 0.5), facecolor=colour)))

    patch.setattr(figure_queue, "_draw", draw_one)


@pytest.fixture
def _blank_figures(monkeypatch):
    draw_blank(monkeypatch)


@contextmanager
def blank_figures():
    """Write and log small pictures, for scripts whose tests look at other things."""
    with pytest.MonkeyPatch.context() as patch:
        draw_blank(patch)
        yield


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """A headless Chromium."""
    from browser import chromium  # In the folder of the tests that use it.

    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def viewer(driver, tmp_path):
    """Opens pages. At the end, there must be no error in the console and no request elsewhere."""
    from viewer import Viewer

    opened = Viewer(driver, tmp_path)
    yield opened
    opened.check_quiet()


@pytest.fixture(autouse=True, scope="session")
def _quickly():
    """Leave out what Lightning does again for each Trainer, and do not wait for the disk.

    A file is on the disk after a moment anyway; tests that let this fail patch it themselves.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _file: None)
        patch.setattr(registry, "entry_points", cache(registry.entry_points))
        yield


@pytest.fixture(autouse=True)
def _draws_all(monkeypatch):
    """Leave out no figure during training, however short the epochs are; see tests/monitor/test_figure_queue.py."""
    monkeypatch.setattr("lightning_cka.monitor.drawing_budget.SHARE", 1e9)


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    """Run each test in its own temporary folder, with torch's seed set."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
