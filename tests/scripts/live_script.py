"""Run by test_tensorboard_plugin.py: train until there is a file ``stop``."""

from pathlib import Path
from unittest.mock import patch

from conftest import Net, loaders, trainer
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_cka import CKAMonitor


class StopOnFile(Callback):
    def on_train_epoch_end(self, trainer, module):
        trainer.should_stop = Path("stop").exists()


if __name__ == "__main__":
    seed_everything(0, workers=True, verbose=False)
    monitor = CKAMonitor(["initial", "previous"], ["net.*", "head"], dirpath="cka")
    logger = TensorBoardLogger("logs", name="", version="live")
    # Drawing takes most of the time.
    drawing = ("figure_queue.FigureQueue.submit", "run_output.write_summary")
    with patch(f"lightning_cka.monitor.{drawing[0]}"), patch(f"lightning_cka.monitor.{drawing[1]}"):
        trainer(monitor, StopOnFile(), max_epochs=2000, logger=logger, log_every_n_steps=1).fit(Net(), *loaders())
