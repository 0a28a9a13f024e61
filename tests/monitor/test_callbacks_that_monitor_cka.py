"""Early stopping, checkpoints and schedulers that monitor a key of `CKAMonitor`."""

import pytest
import torch
from conftest import Net
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning_cka import CKAMonitor
from training import MARKS, STEPS, epochs_and_steps, run

pytestmark = MARKS


def test_monitoring_a_reference_by_epoch_before_that_epoch_ends_raises():
    listener = EarlyStopping("cka/epoch-0/mean")
    with pytest.raises(ValueError, match="CKAMonitor logs it from the end of epoch 0 on"):
        run(CKAMonitor(0), listener, val_check_interval=0.5)
    run(CKAMonitor(0), listener, max_epochs=1)


def test_checkpoints_by_step_use_the_last_logged_value(tmp_path):
    """A checkpoint is saved before the validation of the same step."""
    checkpoint = ModelCheckpoint(tmp_path, monitor="cka/initial/mean", mode="min", every_n_train_steps=6, save_top_k=-1)
    monitor = CKAMonitor()
    settings = STEPS | {"enable_checkpointing": True, "max_steps": 14, "num_sanity_val_steps": 0}
    run(monitor, checkpoint, **settings)
    means = [result.mean() for result in monitor.results["initial"]]
    assert epochs_and_steps(monitor) == [(0, 4), (1, 9)]
    assert [score.item() for score in checkpoint.best_k_models.values()] == pytest.approx(means, abs=1e-6)
    with pytest.raises(ValueError, match=r"ModelCheckpoint looks for 'cka/initial/mean' at each .* every 2 epochs"):
        run(CKAMonitor(every_n_epochs=2), checkpoint, **settings)


class Plateau(Net):
    """A network whose learning rate is halved when CKA with the initial weights stops rising."""

    key = "cka/initial/mean"

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, mode="max", factor=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": self.key}}


def test_schedulers_use_the_keys_and_their_keys_are_checked():
    _, fitted = run(CKAMonitor(), model=Plateau, max_epochs=3)
    assert fitted.optimizers[0].param_groups[0]["lr"] < 0.1  # CKA with the initial weights falls.
    with pytest.raises(ValueError, match="ReduceLROnPlateau looks for 'cka/initial/mean' at each validation"):
        run(CKAMonitor(every_n_epochs=2), model=Plateau)

    class MisspelledKey(Plateau):
        key = "cka/initial/maen"

    with pytest.raises(ValueError, match="ReduceLROnPlateau looks for 'cka/initial/maen', which CKAMonitor does not"):
        run(CKAMonitor(), model=MisspelledKey)


def test_early_stopping_and_stopping_within_an_epoch():
    # CKA falls, so that training would stop at once if it were not for min_epochs.
    stopping = EarlyStopping("cka/initial/mean", patience=0, mode="max")
    monitor = CKAMonitor()
    run(monitor, stopping, min_epochs=4, max_epochs=9)
    assert [r.epoch for r in monitor.results["initial"]] == [0, 1, 2, 3]

    class StopAfterFiveBatches(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            trainer.should_stop = batch_idx == 4

    monitor = CKAMonitor(["initial", 0])
    run(monitor, StopAfterFiveBatches())
    assert epochs_and_steps(monitor) == [(0, 4)]  # Lightning validates once more before it stops.
