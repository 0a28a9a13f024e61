"""Run by test_failed_comparison.py: two processes, one of which fails to compare in the second epoch."""

import sys
import warnings
from pathlib import Path

import lightning as L
import torch
from conftest import Net, blank_figures, loaders
from lightning_cka import CKAMonitor


def show(module, batch):
    trainer = module.trainer
    if sys.argv[1] == "forward" and trainer.validating and module.current_epoch == 1 and trainer.global_rank == 1:
        raise MemoryError("no memory is left")
    return module(batch[0])


def distance(squared_distances):
    """A kernel that fails after the model was shown the probe set, when no forward pass is running."""
    trainer = distance.trainer
    is_due = trainer is not None and trainer.validating and (trainer.current_epoch, trainer.global_rank) == (1, 1)
    if sys.argv[1] == "kernel" and is_due:
        raise MemoryError("no memory is left")
    return -squared_distances.clamp(min=0).sqrt()


distance.trainer = None


def main():
    torch.set_num_threads(1)
    L.seed_everything(0, workers=True, verbose=False)
    monitor = CKAMonitor(
        ["initial", "previous"], kernel=["rbf", distance], forward_fn=show, dirpath=Path("folder"), on_error="warn"
    )
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        callbacks=[monitor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    distance.trainer = trainer
    with blank_figures(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(Net(), *loaders())
    messages = [str(each.message) for each in caught if "on_error='warn'" in str(each.message)]
    means = {key: [round(r.mean(), 6) for r in results] for key, results in monitor.results.items()}
    Path(f"results-{trainer.global_rank}").write_text(f"{messages}\n{means}")


if __name__ == "__main__":
    main()
