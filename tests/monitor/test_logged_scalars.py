"""Logged scalars, and callbacks that monitor them."""

import pytest
from conftest import Net
from fitting import fit
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning_cka import CKAMonitor

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
    assert "cka/self/head" not in metrics


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
