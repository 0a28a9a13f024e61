"""Run by test_tensorboard_plugin.py: train one run of 12 epochs, and another one until there is a file ``stop``."""

from pathlib import Path
from unittest.mock import patch

from conftest import Net, loaders, trainer
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_cka import CKAMonitor


class StopOnFile(Callback):
    def on_train_epoch_end(self, trainer, module):
        trainer.should_stop = Path("stop").exists()


def train(name, epochs):
    seed_everything(len(name), workers=True, verbose=False)
    monitor = CKAMonitor(
        ["initial", "previous"], ["net.*", "head"], measures=["cka", "mutual_knn"], dirpath=f"cka/{name}"
    )
    logger = TensorBoardLogger("logs", name="", version=name)
    trainer(monitor, StopOnFile(), max_epochs=epochs, logger=logger, log_every_n_steps=1).fit(Net(), *loaders())


if __name__ == "__main__":
    with (
        patch("lightning_cka.monitor.run_output.log_figures", lambda *_args: []),
        patch("lightning_cka.monitor.run_output.write_summary", lambda *_args: None),
    ):
        train("first", 12)
        train("second", 2000)
