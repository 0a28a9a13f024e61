"""Run by test_measures_of_a_run.py: train with all measures, sync their metrics, and write the results to a file."""

import json
import sys
import warnings
from pathlib import Path

import lightning as L
import torch
from conftest import blank_figures, dataset
from ddp_script import Deterministic
from lightning.pytorch.callbacks import EarlyStopping
from lightning_cka import CKAMonitor, MinibatchMutualKNN, MinibatchRidge, MinibatchRSA
from measure_cases import MEASURES
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

METRICS = {"mutual_knn": MinibatchMutualKNN, "rsa": MinibatchRSA, "ridge": MinibatchRidge}


class WithMetrics(Deterministic):
    """Compute all metrics over the same batches, however many processes share them."""

    def __init__(self):
        super().__init__()
        self.metrics = nn.ModuleDict({name: metric(["x"], ["y"]) for name, metric in METRICS.items()})
        self.found = {}

    def on_validation_epoch_end(self):
        x = dataset(96).tensors[0].double()
        for name, metric in self.metrics.items():
            for batch in x.split(16)[self.global_rank :: self.trainer.world_size]:
                metric.update([batch], [batch[:, :3] ** 2])
            self.found[name] = metric.compute().item()
            metric.reset()


def main(devices):
    torch.set_num_threads(1)
    L.seed_everything(0, workers=True, verbose=False)
    x, y = dataset(96).tensors
    x = x.double()
    x[48] *= 40  # An outlier.
    monitor = CKAMonitor("initial", measures=list(MEASURES), dirpath="cka", batch_size=16, trajectory=True)
    model = WithMetrics().double()
    trainer = L.Trainer(
        max_epochs=2,
        limit_train_batches=1,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        callbacks=[monitor, EarlyStopping("cka/initial/mutual_knn/mean", mode="max", patience=9)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    with blank_figures(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, loader, loader)
    if trainer.is_global_zero:
        content = {
            key: [
                {
                    "epoch": each.epoch,
                    "measure": each.measure,
                    "matrix": each.matrix.tolist(),
                    "error": each.standard_error.tolist(),
                    "mean error": each.mean_standard_error,
                    "batches": each.effective_batches,
                    "leave one out": each.diagnostics.leave_one_out,
                    "flags": sorted((flag.layer, flag.reason) for flag in each.flags),
                    "left out": each.left_out_batches.values.tolist(),
                }
                for each in results
            ]
            for key, results in monitor.results.items()
        }
        logged = {key: value.item() for key, value in trainer.callback_metrics.items()}
        text = json.dumps({"results": content, "metrics": model.found, "logged": logged})
        Path(f"measures-{devices}.json").write_text(text)


if __name__ == "__main__":
    main(int(sys.argv[1]))
