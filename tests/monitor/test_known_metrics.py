"""Values that are logged without Lightning's checks of known keys arrive as if ``log`` had been called for each."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch import Callback
from lightning_cka.monitor.known_metrics import log_values
from torch.utils.data import DataLoader, TensorDataset


class Logs(Callback):
    """Logs other values in each epoch: all of them together, or one by one with ``log``."""

    def __init__(self, *, together):
        self.together = together
        self.calls = []
        self.epochs = []

    def values(self, epoch):
        values = {f"cka/{name}": float(epoch + place / 3) for place, name in enumerate("abcd")}
        if epoch >= 1:
            values["cka/later"] = float("nan") if epoch == 1 else 1 / 3
        return values if epoch != 2 else {name: value for name, value in values.items() if name != "cka/b"}

    def on_validation_epoch_end(self, trainer, pl_module):
        values = self.values(trainer.current_epoch)
        if self.together:
            log_values(pl_module, values)
            return
        for name, value in values.items():
            pl_module.log(name, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)

    def on_train_epoch_end(self, trainer, pl_module):
        metrics = (trainer.callback_metrics, trainer.logged_metrics)
        self.epochs.append([{k: repr(v) for k, v in each.items() if k.startswith("cka/")} for each in metrics])


def trained(callback, model):
    data = DataLoader(TensorDataset(torch.randn(16, 8), torch.zeros(16)), batch_size=8)
    options = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_epochs=4, num_sanity_val_steps=0, accelerator="cpu", logger=False, callbacks=[callback], **options
    )
    trainer.fit(model, data, data)
    return callback.epochs, trainer.validate(model, data, verbose=False)


class Small(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch, _index):
        return self.layer(batch[0]).mean()

    def validation_step(self, batch, _index):
        self.log("val_loss", self.layer(batch[0]).mean() * 0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_values_arrive_as_if_each_had_been_logged_by_itself():
    together, apart = (trained(Logs(together=flag), Small()) for flag in (True, False))
    assert together == apart
    epochs, validated = together
    assert epochs[2][0]["cka/a"] == repr(torch.tensor(2.0))
    assert "cka/later" in validated[0]


def test_known_keys_take_no_call_of_log(monkeypatch):
    calls = []
    log = pl.LightningModule.log

    def counted(self, name, *args, **kwargs):
        calls.append(name)
        return log(self, name, *args, **kwargs)

    monkeypatch.setattr(pl.LightningModule, "log", counted)
    trained(Logs(together=True), Small())
    # `fit` and `validate` have metrics of their own.
    new = [name for name in calls if name.startswith("cka/") and name != "cka/a"]
    assert sorted(new) == sorted(2 * ["cka/b", "cka/c", "cka/d", "cka/later"])
    assert calls.count("cka/a") == 5


@pytest.mark.parametrize("on_instance", [True, False])
def test_a_log_of_the_users_own_gets_all_values(on_instance):
    seen = []

    class Own(Small):
        def log(self, name, *args, **kwargs):
            seen.append(name)
            super().log(name, *args, **kwargs)

    model = Small() if on_instance else Own()
    if on_instance:
        model.log = lambda name, *args, **kwargs: (seen.append(name), Small.log(model, name, *args, **kwargs))[1]
    trained(Logs(together=True), model)
    assert seen.count("cka/d") == 5
