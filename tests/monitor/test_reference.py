"""Frozen references: checkpoints and modules."""

import threading
from collections import OrderedDict

import pytest
import torch
from conftest import Net, loaders, trainer
from fitting import fit
from lightning_cka import CKAMonitor, compare_models
from torch import nn

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


def save(content):
    torch.save(content, "reference.pt")
    return "reference.pt"


def test_a_checkpoint_a_state_dict_and_a_module_give_the_same_reference(tmp_path):
    """A Lightning checkpoint, a plain state_dict and a module of the same weights are the same reference."""
    other = Net()
    plain = trainer(max_epochs=1)
    plain.fit(other, *loaders())
    plain.save_checkpoint(tmp_path / "other.ckpt")
    torch.save(other.state_dict(), tmp_path / "plain.pt")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    monitor = CKAMonitor([str(tmp_path / "other.ckpt"), tmp_path / "plain.pt", other, other])
    model, _ = fit(monitor)
    assert list(monitor.results) == ["other", "plain", "reference", "reference-2"]
    matrices = [results[-1].matrix for results in monitor.results.values()]
    assert all(torch.equal(matrix, matrices[0]) for matrix in matrices)
    assert other.training
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    batches = [b.data for b in monitor._session.probe.probe.batches()]
    offline = compare_models(model, other, batches, progress_bar=False)
    assert torch.allclose(offline.matrix, matrices[0], atol=1e-12)


def test_a_reference_of_another_architecture():
    reference = nn.Sequential(OrderedDict(a=nn.Linear(8, 5), b=nn.Tanh(), c=nn.Linear(5, 4)))
    monitor = CKAMonitor(reference, layers=["net.*", "head"], reference_layers=nn.Linear)
    _, used = fit(monitor)
    result = monitor.results["Sequential"][-1]
    assert result.reference_layers == ("a", "c")
    assert result.matrix.shape == (7, 2)
    assert result.same_named() == {}
    logged = used.callback_metrics
    assert logged["cka/Sequential/mean_all_pairs"].item() == pytest.approx(result.matrix.mean().item(), abs=1e-6)
    assert "cka/Sequential/mean" not in logged


def test_a_log_message_names_a_reference_that_cannot_be_copied(caplog):
    reference = Net()
    reference.lock = threading.Lock()
    monitor = CKAMonitor(reference)
    fit(monitor)
    assert (
        "reference 'reference' is shown the probe set itself, and restored afterwards: Net cannot be copied"
        in caplog.text
    )
    assert len(monitor.results["reference"]) == 2


def test_a_checkpoint_with_extra_state(tmp_path):
    class Extra(Net):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    torch.save({"state_dict": Extra().state_dict()}, tmp_path / "extra.ckpt")
    monitor = CKAMonitor(tmp_path / "extra.ckpt")
    fit(monitor, model=Extra())
    assert len(monitor.results["extra"]) == 2


def test_a_reference_that_reads_its_trainer():
    class Asks(Net):
        def forward(self, x):
            assert self.trainer.fit_loop is not None
            return super().forward(x)

    monitor = CKAMonitor(Asks())
    fit(monitor, model=Asks())
    assert len(monitor.results["reference"]) == 2


def test_a_corrupt_checkpoint(tmp_path):
    good = tmp_path / "good.pt"
    torch.save(Net().state_dict(), good)
    for name, content in {
        "text.ckpt": b"not a checkpoint",
        "cut.ckpt": good.read_bytes()[:200],
        "empty.ckpt": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"checkpoint '{name}' cannot be read"):
            trainer(CKAMonitor(tmp_path / name)).fit(Net(), *loaders())
    with pytest.raises(ValueError, match=r"is a folder.*`python -m lightning"):
        trainer(CKAMonitor(tmp_path)).fit(Net(), *loaders())


def test_rows_and_files_have_the_name_of_a_frozen_reference_alone(tmp_path):
    """Figures say that it is frozen. Filters on names of references, written for older versions, stay valid."""
    monitor = CKAMonitor({"first": Net(), "start": "initial"}, dirpath=tmp_path)
    _, used = fit(monitor)
    assert monitor.results["first"][-1].reference_name == "first (frozen)"
    assert list(monitor.results) == ["first", "start"]
    assert {row["reference"] for row in monitor.to_rows()} == {"first", "start"}
    assert not [path.name for path in tmp_path.rglob("*") if "frozen" in path.name]
    assert not [key for key in used.callback_metrics if "frozen" in key]
