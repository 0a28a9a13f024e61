"""Callbacks that monitor a CKA value find it, or raise before training."""

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


def test_callbacks_that_need_a_key_at_each_epoch_raise_before_training():
    for other in (EarlyStopping("cka/initial/mean"), ModelCheckpoint(monitor="cka/initial/mean")):
        with pytest.raises(ValueError, match=r"looks for 'cka/initial/mean' at each validation, .* every 2 epochs"):
            fit(CKAMonitor(every_n_epochs=2), other, enable_checkpointing=True)
    fine = EarlyStopping("cka/initial/mean", mode="max", patience=9)
    checkpoint = ModelCheckpoint(monitor="cka/initial/mean", every_n_epochs=2)
    fit(CKAMonitor(every_n_epochs=2), checkpoint, max_epochs=4, enable_checkpointing=True)
    fit(CKAMonitor(every_n_epochs=2), fine, max_epochs=4, check_val_every_n_epoch=2)
    assert checkpoint.best_model_score is not None


@pytest.mark.parametrize(
    ("kernel", "key", "close"),
    [
        (["linear", "rbf"], "cka/initial/mean", "cka/initial/linear/mean"),
        ("linear", "cka/initial/haed", "cka/initial/head"),
    ],
)
def test_callbacks_that_monitor_an_unknown_key_raise_before_training(kernel, key, close):
    steps = []

    class Counts(Net):
        def training_step(self, batch, batch_idx):
            steps.append(batch_idx)
            return super().training_step(batch, batch_idx)

    with pytest.raises(ValueError, match=rf"EarlyStopping looks for '{key}', which CKAMonitor does not log; .*{close}"):
        fit(CKAMonitor(kernel=kernel), EarlyStopping(key), model=Counts())
    assert steps == []
    fit(CKAMonitor("self", log_key_prefix=""), EarlyStopping("val_loss"), max_epochs=1)


def test_changes_exist_from_the_second_result_on():
    key = "cka/initial/head_change"
    with pytest.raises(ValueError, match=rf"looks for '{key}' at each validation, but .* from the second result on"):
        fit(CKAMonitor(log_changes=True), EarlyStopping(key))
    with pytest.raises(ValueError, match=rf"looks for '{key}', which CKAMonitor does not log"):
        fit(CKAMonitor(), EarlyStopping(key))
    waits = EarlyStopping(key, strict=False, mode="min", patience=0, stopping_threshold=-1.0)
    fit(CKAMonitor(log_changes=True), waits, max_epochs=3)
    assert waits.best_score.isfinite()
