"""Logged scalars, and callbacks that monitor them."""

import pytest
import torch
from conftest import Net
from fitting import fit
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning_cka import CKAMonitor, CKAResult
from lightning_cka.monitor.logged_scalars import change_names, change_scalars, logged_names

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


def test_scalars_equal_the_results_and_callbacks_can_monitor_them(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path / "best", monitor="cka/initial/mean", mode="min", save_top_k=1)
    stopping = EarlyStopping("cka/initial/head", patience=0, mode="max")  # CKA falls, so it stops at once.
    monitor = CKAMonitor(["initial", "self"])
    _, used = fit(monitor, checkpoint, stopping, max_epochs=9, enable_checkpointing=True)
    result = monitor.results["initial"][-1]
    metrics = used.callback_metrics
    assert used.current_epoch < 9
    assert checkpoint.best_model_score.item() == pytest.approx(
        min(r.mean() for r in monitor.results["initial"]), abs=1e-6
    )
    assert metrics["cka/initial/mean"].item() == pytest.approx(result.matrix.diagonal().mean().item(), abs=1e-6)
    for name, value in result.same_named().items():
        assert metrics[f"cka/initial/{name}"].item() == pytest.approx(value, abs=1e-6)
    own = monitor.results["self"][-1].matrix
    off_diagonal = (own.sum() - 4) / 12
    assert metrics["cka/self/mean"].item() == pytest.approx(off_diagonal.item(), abs=1e-6)
    assert set(metrics) >= {"cka/self/mean", "val_loss"}
    assert metrics["cka/self/alike_blocks"].item() == len(monitor.results["self"][-1].redundancy().blocks) > 0
    assert "cka/self/head" not in metrics


def test_callbacks_can_monitor_the_number_of_blocks():
    stopping = EarlyStopping("cka/self/alike_blocks", mode="max", patience=99, stopping_threshold=0.5)
    _, used = fit(CKAMonitor("self"), stopping, max_epochs=9)
    assert used.current_epoch == 1  # Of nine.
    few = CKAMonitor("self", gram_batch_size=64)  # Without intervals, there are no blocks.
    _, used = fit(few)
    assert used.callback_metrics["cka/self/alike_blocks"].isnan()
    with pytest.raises(ValueError, match="looks for 'cka/initial/alike_blocks', which CKAMonitor does not log"):
        fit(CKAMonitor("initial"), EarlyStopping("cka/initial/alike_blocks"))


def test_a_layer_named_mean_has_a_key_of_its_own():
    class Policy(Net):
        def __init__(self):
            super().__init__()
            self.mean = self.head
            del self.head

        def forward(self, x):
            return self.mean(self.net(x))

    monitor = CKAMonitor()
    with pytest.warns(UserWarning, match="layer 'mean' is logged as 'cka/initial/mean-2'"):
        _, used = fit(monitor, model=Policy())
    result, metrics = monitor.results["initial"][-1], used.callback_metrics
    assert metrics["cka/initial/mean"].item() == pytest.approx(result.mean(), abs=1e-6)
    assert metrics["cka/initial/mean-2"].item() == pytest.approx(result.same_named()["mean"], abs=1e-6)
    assert result.mean() != pytest.approx(result.same_named()["mean"], abs=1e-3)


class Keys(Callback):
    """Keeps the logged CKA values of each epoch."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append({k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("cka/")})


def test_changes_are_logged_only_if_the_user_asks_for_them():
    monitor, keys = CKAMonitor(["initial", "self"], log_changes=True), Keys()
    fit(monitor, keys, max_epochs=3)
    changes = [{key for key in epoch if key.endswith("_change")} for epoch in keys.epochs]
    layers = monitor.results["initial"][-1].layers
    assert changes == [set(), *[{f"cka/initial/{name}_change" for name in layers}] * 2]
    before, after = monitor.results["initial"][-2:]
    for name, value in after.same_named().items():
        change = value - before.same_named()[name]
        assert keys.epochs[-1][f"cka/initial/{name}_change"] == pytest.approx(change, abs=1e-6)
    assert any(abs(keys.epochs[-1][key]) > 1e-3 for key in changes[-1])
    plain = Keys()
    fit(CKAMonitor("initial"), plain, max_epochs=3)
    assert not any("change" in key for epoch in plain.epochs for key in epoch)


def test_changes_skip_validation_outside_training():
    def result(value, epoch):
        return CKAResult(torch.tensor([[value]]), ("a",), ("a",), epoch=epoch)

    assert change_scalars([result(0.5, 0), result(0.9, None), result(0.75, 1)]) == {"a_change": 0.25}
    assert change_scalars([result(0.5, 0), result(0.9, None)]) == {}
    assert change_scalars([result(0.9, None), result(0.5, 0)]) == {}


def test_names_of_changes_are_not_those_of_layers():
    layers = ["a", "a_change", "mean"]
    assert change_names(layers) == {"a": "a_change-2", "a_change": "a_change_change", "mean": "mean-2_change"}
    assert not set(change_names(layers).values()) & set(logged_names(layers).values())
