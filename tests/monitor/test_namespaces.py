"""The Trainer and modules of `pytorch_lightning`, which are other classes than those of `lightning.pytorch`."""

import inspect
import json
import subprocess
import sys

import pytest
import torch
from conftest import cli_config, dataset, run_script
from lightning_cka import CKAMonitor
from torch import nn
from torch.utils.data import DataLoader

pytestmark = pytest.mark.usefixtures("_blank_figures")
pl = pytest.importorskip("pytorch_lightning")


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 3)
        self.seen = []

    def forward(self, x):
        self.seen.append(self.trainer.state.stage)
        self.log("inside", float(len(x)), batch_size=1)
        return self.second(self.first(x).relu())

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:CKA with '.*'. layers (that|whose)")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec")
def test_the_other_trainer_and_its_modules(tmp_path):
    reference = Net()
    monitor = CKAMonitor(["initial", "previous", "self", reference], num_samples=64, dirpath=tmp_path)
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, monitor="cka/initial/mean")
    trainer = pl.Trainer(
        max_epochs=2,
        callbacks=[monitor, checkpoint],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    data = DataLoader(dataset(128), batch_size=32)
    model = Net()
    trainer.fit(model, data, data)
    assert {name: len(results) for name, results in monitor.results.items()} == dict.fromkeys(
        ("initial", "previous", "self", "reference"), 2
    )
    assert checkpoint.best_model_score is not None
    # Probe batches have 8 samples. Values that forward logs for them do not count as data of the loaders.
    assert trainer.callback_metrics["inside"] == 32
    assert not reference.seen
    monitor = CKAMonitor(["initial", "previous", "self", reference], num_samples=64, dirpath=tmp_path)
    again = pl.Trainer(max_epochs=3, callbacks=[monitor], logger=False, enable_progress_bar=False, accelerator="cpu")
    again.fit(Net(), data, data, ckpt_path=checkpoint.best_model_path)
    assert [result.reference_name for result in monitor.results["initial"]][-1] == "initial"


def test_both_command_lines_take_it_from_yaml(tmp_path):
    """The second command line reads the configuration that the first one saved."""
    rbf = {"class_path": "lightning_cka.kernels.RBF", "init_args": {"threshold": 0.4}}
    config = cli_config(
        reference=["initial", "previous", "self", 0],
        layers=["first", "sec*"],
        num_samples=64,
        feature_fn="mean",
        kernel=["linear", rbf],
        thresholds={"trace_ratio": 30},
        dirpath="cka",
    )
    (tmp_path / "ours.yaml").write_text(config)
    run_script("cli_script.py", tmp_path, "lightning.pytorch", "fit", "--config", "ours.yaml")
    (tmp_path / "config.yaml").rename(tmp_path / "saved.yaml")
    run_script("cli_script.py", tmp_path, "pytorch_lightning", "fit", "--config", "saved.yaml", fresh=True)
    one, other = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("lightning.pytorch", "pytorch_lightning")
    )
    names = ("initial", "previous", "self", "epoch-0")
    assert one == other
    assert one.keys() == {f"{name}/{kernel}" for name in names for kernel in ("linear", "rbf")}


def test_the_help_of_the_command_line_is_complete_and_short(tmp_path):
    option = "--trainer.callbacks.help"
    text = run_script("cli_script.py", tmp_path, "lightning.pytorch", "fit", option, "lightning_cka.CKAMonitor").stdout
    text = " ".join(text.split())
    assert "Logs how the representations of a model change while it trains" in text
    assert 'What to compare with: "initial" (the weights at the start of training)' in text
    assert text.count("known subclasses") <= 1  # Those of `Measure`. Those of modules would be hundreds.
    number = len(inspect.signature(CKAMonitor).parameters)
    assert len(text) < number * 9600 / 28  # Less than 343 characters for each option, as when there were 28.


def test_either_namespace_can_be_imported_first():
    code = """
import lightning_cka, pytorch_lightning as pl
monitor = lightning_cka.CKAMonitor()
assert isinstance(monitor, pl.Callback), type(monitor).__mro__
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
