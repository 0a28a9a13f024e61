"""The results of a validation: values, undefined layers, skipped batches."""

import naive
import pytest
import torch
from conftest import Net, loaders, trainer
from fitting import fit
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning_cka import CKAMonitor
from torch import nn
from torch.utils.data import DataLoader

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


def save(content):
    torch.save(content, "reference.pt")
    return "reference.pt"


def test_results_equal_the_naive_reference():
    """On the probe set's own samples, with the weights at that time."""
    seen = {}

    class Record(Callback):
        """Copies the activations at the same times, without the package's hooks."""

        def activations(self, model):
            probe = monitor._session.probe.probe
            model.eval()
            with torch.no_grad():
                batches = [x for x, _ in (b.data for b in probe.batches())]
                result = [[model.net[:i](x) for i in (1, 2, 5)] + [model(x)] for x in batches]
            model.train()
            return result

        def on_train_start(self, trainer, model):
            seen["initial"] = self.activations(model)

        def on_validation_epoch_end(self, trainer, model):
            if not trainer.sanity_checking:
                seen[trainer.current_epoch] = self.activations(model)

    monitor = CKAMonitor(["initial", "previous", "self"])
    fit(monitor, Record())
    assert [r.layers for r in monitor.results["self"]] == [("net.0", "net.1", "net.4", "head")] * 2
    before = "initial"
    for epoch in (0, 1):
        for name, reference in (("initial", seen["initial"]), ("previous", seen[before]), ("self", seen[epoch])):
            result = monitor.results[name][epoch]
            assert abs(result.matrix.numpy() - naive.minibatch_cka(seen[epoch], reference)).max() < 1e-5
            assert (result.num_samples, result.num_batches, result.epoch) == (128, 8, epoch)
            assert (result.standard_error < 0.2).all()
        before = epoch
    assert torch.equal(monitor.results["self"][1].matrix.diagonal(), torch.ones(4, dtype=torch.float64))
    assert (monitor.results["initial"][1].matrix.diagonal() < 0.999).all()


def test_the_live_model_is_shown_the_probe_set_once_per_epoch(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "a.pt")
    frozen, calls = Net(), {"live": 0, "frozen": 0}

    def forward_fn(module, batch):
        calls["frozen" if getattr(module, "is_frozen", False) else "live"] += 1
        return module(batch[0])

    frozen.is_frozen = True
    fit(CKAMonitor(["initial", "self", frozen], forward_fn=forward_fn), max_epochs=3)
    assert calls == {"live": 2 + 8 + 3 * 8, "frozen": 2 + 8}  # Two calls of the dry run, and 8 probe batches.


def test_nan_activations_give_nan_cells_and_one_warning_per_layer():
    class Breaks(Net):
        def on_train_epoch_end(self):
            with torch.no_grad():
                self.head.weight[0, 0] = torch.nan

    monitor = CKAMonitor(["initial", "self"])
    with pytest.warns(UserWarning) as caught:
        fit(monitor, model=Breaks(), max_epochs=3, check_val_every_n_epoch=1)
    matrix = monitor.results["initial"][-1].matrix
    assert matrix[3].isnan().all()
    messages = [str(w.message) for w in caught if "CKA is nan" in str(w.message)]
    assert len(messages) == len(set(messages))
    named = [name for text in messages for name in text.split(": ")[1].split(", ")]
    assert sorted(named) == ["head", "net.0", "net.1", "net.4"]
    assert len(monitor.results["self"]) == 3


def test_a_dead_layer_does_not_stop_early_stopping():
    class Dead(Net):
        def __init__(self):
            super().__init__()
            nn.init.zeros_(self.head.weight).requires_grad_(False)
            self.head.bias.requires_grad_(False)

    monitor = CKAMonitor()
    with pytest.warns(UserWarning, match="no variance: head, head \\(reference\\)|no variance: head"):
        _, used = fit(monitor, EarlyStopping("cka/initial/mean", patience=9), model=Dead(), max_epochs=3)
    assert used.current_epoch == 3
    assert monitor.results["initial"][-1].matrix[3].isnan().all()
    assert 0 < monitor.results["initial"][-1].mean() < 1


def test_batches_whose_inputs_change_are_skipped_with_a_warning():
    class NotReproducible(torch.utils.data.Dataset):
        """Returns other samples at each read."""

        def __init__(self):
            self.reads = 0

        def __len__(self):
            return 64

        def __getitem__(self, index):
            self.reads += 1
            return torch.full((8,), float(self.reads)), torch.tensor(index % 3)

    monitor = CKAMonitor()
    used = trainer(monitor, max_epochs=1)
    with pytest.warns(UserWarning, match="8 probe batches were skipped in the comparison with 'initial'"):
        used.fit(Net(), loaders()[0], DataLoader(NotReproducible(), batch_size=16))
    assert monitor.results["initial"][0].matrix.isnan().all()


def test_self_needs_two_layers():
    with pytest.raises(ValueError, match="'self' compares a model's layers with each other, but only one is chosen"):
        fit(CKAMonitor("self", layers="head"))
