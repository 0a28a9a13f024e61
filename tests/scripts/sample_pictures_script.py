"""Run by test_sample_pictures.py: train with pictures of samples; rank 0 writes what was drawn to a file."""

import argparse
import json
import warnings
from pathlib import Path

import lightning as L
import lightning_cka.monitor.run_output
import torch
from conftest import dataset
from ddp_script import Deterministic
from lightning_cka import CKAMonitor
from lightning_cka.compare.sample_maps import sample_maps
from lightning_cka.monitor import sample_pictures
from torch.utils.data import DataLoader, TensorDataset


class Says(Deterministic):
    def on_train_batch_start(self, batch, batch_idx):
        Path(f"training began {self.global_rank}").touch()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int)
    parser.add_argument("--fail", action="store_true", help="let labels_fn fail on rank 1")
    args = parser.parse_args()
    torch.set_num_threads(1)
    L.seed_everything(0, workers=True, verbose=False)
    lightning_cka.monitor.run_output.log_figures = lambda *_args: []
    maps, draw = [], sample_pictures.draw_samples

    def record(bank, layers, labels, marks, **kwargs):
        found = sample_maps(bank, layers, marks=marks).maps
        maps.append([[each.layer, each.coordinates.round(decimals=4).abs().tolist(), each.marked] for each in found])
        return draw(bank, layers, labels, marks, **kwargs)

    sample_pictures.draw_samples = record
    x, y = dataset(72).tensors
    x = x.double()
    x[36] *= 40

    def labels_fn(batch):
        if args.fail and trainer.global_rank == 1:
            raise RuntimeError("only on rank 1")
        return batch[1]

    folder = Path(f"cka-{args.devices}")
    monitor = CKAMonitor(batch_size=8, dirpath=folder, plot_samples=True, labels_fn=labels_fn)
    trainer = L.Trainer(
        max_epochs=2,
        limit_train_batches=1,
        accelerator="cpu",
        devices=args.devices,
        strategy="ddp" if args.devices > 1 else "auto",
        callbacks=[monitor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Says().double(), loader, loader)
    if trainer.is_global_zero:
        content = {
            "files": sorted(path.name for path in (folder / "samples").iterdir()),
            "labels": json.loads((folder / "samples" / "labels.json").read_text()),
            "marked": sorted({sample for each in maps for _, _, marked in each for sample in marked}),
            "maps": maps,
        }
        Path(f"out-{args.devices}.json").write_text(json.dumps(content, sort_keys=True))


if __name__ == "__main__":
    main()
