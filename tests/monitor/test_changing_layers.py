"""Layers that are removed while training goes on, and layers that run several times."""

import warnings

import lightning as L
import pytest
import torch
from conftest import Net, loaders, run_script, trainer
from lightning_cka import CKAMonitor, GramBank, compare_models
from lightning_cka.compare.result import CKAResult
from torch import nn


class Removes(L.Callback):
    """Takes a layer away in epochs 1 and 2."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.layer = pl_module.net
            pl_module.net = nn.Sequential(*list(self.layer)[:4], nn.Identity())
        if trainer.current_epoch == 3:
            pl_module.net = self.layer


@pytest.mark.usefixtures("_without_figures")
def test_a_removed_layer_is_nan_and_named_once_until_it_comes_back():
    monitor = CKAMonitor(["initial", "self"], ["net.0", "net.4", "net.5", "head"], num_samples=64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(monitor, Removes(), max_epochs=4).fit(Net(), *loaders())
    named = [str(w.message) for w in caught if "is nan" in str(w.message)]
    assert named == ["layer 'net.5' is no longer in the model: its CKA is nan"]
    for results in monitor.results.values():
        assert [result.matrix[2].isnan().all().item() for result in results] == [False, True, True, False]
        assert not any(result.matrix[[0, 1, 3]][:, [0, 1, 3]].isnan().any() for result in results)


def test_a_layer_that_one_process_lacks_is_nan_on_all(tmp_path):
    run_script("removed_layer_script.py", tmp_path)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert torch.equal(results[0].nan_to_num(-1), results[1].nan_to_num(-1))
    assert results[0].diagonal().isnan().tolist() == [False, False, True, False]


class Recurrent(Net):
    def forward(self, x):
        for _ in range(2):
            x = self.net[0](x)[:, :8]
        return self.head(self.net(x))


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.filterwarnings("ignore:CKA", "ignore:the batches of")
def test_calls_are_chosen_in_all_entry_points():
    results = {}
    for call in ("last", "mean"):
        monitor = CKAMonitor("self", ["net.0", "head"], call=call, num_samples=64)
        trainer(monitor, max_epochs=1).fit(Recurrent(), *loaders())
        results[call] = monitor.results["self"][0].matrix
    assert not torch.allclose(results["last"], results["mean"], atol=1e-3)
    model, data = Recurrent(), loaders()[1]
    with pytest.warns(UserWarning, match="compared at their first call: net.0"):
        first = compare_models(model, model, data, "net.0", progress_bar=False)
    last = compare_models(model, model, data, ["net.0", "head"], call="last", progress_bar=False)
    bank = GramBank.from_model(model, data, ["net.0", "head"], call="last", progress_bar=False)
    assert isinstance(first, CKAResult)
    assert isinstance(last, CKAResult)
    assert bank.layers == last.layers
    for make in (CKAMonitor, lambda call: compare_models(model, model, data, call=call)):
        with pytest.raises(ValueError, match="call must be one of 'first', 'last', 'mean', but is 'all'"):
            make(call="all")


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_checkpoint_tells_that_another_call_was_read(tmp_path):
    def fit(call, epochs, ckpt_path=None):
        monitor = CKAMonitor("self", ["net.0", "head"], call=call, num_samples=64, dirpath=tmp_path / "cka")
        runner = trainer(monitor, max_epochs=epochs)
        runner.fit(Recurrent(), *loaders(), ckpt_path=ckpt_path)
        runner.save_checkpoint(tmp_path / "a.ckpt")
        return [result.epoch for result in monitor.results["self"]]

    assert fit("first", 1) == [0]
    assert fit("first", 2, tmp_path / "a.ckpt") == [0, 1]
    assert fit("last", 3, tmp_path / "a.ckpt") == [2]
