"""Probe samples with identical inputs are counted and named, in all routes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import trainer
from lightning.pytorch import LightningModule, seed_everything
from lightning_cka import CKAMonitor, GramBank, Thresholds, compare_banks, compare_models
from lightning_cka.plotting import plot_cka
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ONLY = replace(Thresholds.off(), copies=0.01)
TEXT = r"probe samples have identical inputs: the input \(64 copies, such as dataset index 3, 4, 12, 20,"


class Wide(LightningModule):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 32)

    def forward(self, x):
        return self.second(self.first(x).relu())

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-2)


def data(count=64):
    x = torch.randn(512, 16, generator=torch.Generator().manual_seed(0))
    x[4::8][:count] = x[3]
    return TensorDataset(x)


def copies(result):
    return [(flag.layer, flag.value, flag.samples[:2]) for flag in result.flags if flag.reason == "copies"]


def test_copies_are_reported_by_models_and_banks(tmp_path):
    loader = DataLoader(data(), batch_size=64)
    one, other = Wide(), Wide()
    with pytest.warns(UserWarning, match=TEXT):
        result = compare_models(one, other, loader, progress_bar=False, thresholds=ONLY)
    assert copies(result) == [("the input", 64.0, (3, 4))]
    for name, net in (("a", one), ("b", other)):
        GramBank.from_model(net, loader, progress_bar=False).save(tmp_path / name)
    with pytest.warns(UserWarning, match=TEXT):
        compare_banks(tmp_path / "a", tmp_path / "b", thresholds=ONLY)
    rest = {"exclude": range(4, 512, 8), "thresholds": ONLY}
    assert copies(compare_banks(tmp_path / "a", tmp_path / "b", **rest)) == []
    GramBank.load(tmp_path / "a").save(tmp_path / "again")  # What was read is written again.
    assert (tmp_path / "again").read_bytes() == (tmp_path / "a").read_bytes()
    _, ax = plot_cka(result)
    assert "probe samples with identical inputs: the input (64 copies" in " ".join(ax.texts[-1].get_text().split())


@pytest.mark.usefixtures("_blank_figures")
def test_the_monitor_warns_once():
    seed_everything(0, verbose=False)
    loader = DataLoader(data(), batch_size=64)
    monitor = CKAMonitor(["initial", "previous"], kernel=["linear", "rbf"], thresholds=ONLY)
    with pytest.warns(UserWarning) as caught:
        trainer(monitor, max_epochs=2).fit(Wide(), loader, loader)
    assert sum("identical inputs" in str(warning.message) for warning in caught) == 1
    assert all(len(copies(result)) == 1 for results in monitor.results.values() for result in results)


def test_a_few_copies_are_no_flag():
    loader = DataLoader(data(count=5), batch_size=64)
    assert copies(compare_models(Wide(), Wide(), loader, progress_bar=False, thresholds=ONLY)) == []


def test_banks_of_older_versions_know_no_copies():
    folder = Path(__file__).parents[1] / "data"
    paths = [folder / f"bank-v1-{name}.safetensors" for name in "ab"]
    assert not any(batch.input_hashes for batch in GramBank.load(paths[0]))
    assert copies(compare_banks(*paths, thresholds=ONLY)) == []
