"""Run by test_distributed.py: train a small network in several scenarios; rank 0 writes the results to a file.

The weights do not depend on the data, so they are the same with any number of processes.
"""

import argparse
import json
import warnings
from itertools import pairwise
from pathlib import Path

import lightning as L
import torch
from conftest import Net, dataset
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_cka import CKAMonitor, compare_models
from lightning_cka.runtime.collectives import all_gather_objects
from torch.utils.data import DataLoader, TensorDataset


class Deterministic(Net):
    def training_step(self, batch, batch_idx):
        return sum(p.square().sum() + p.sum() for p in self.parameters())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def run(devices, strategy, samples, own, layers):
    L.seed_everything(0, workers=True, verbose=False)
    model, reference = Deterministic().double(), Net().double()
    x = dataset(samples).tensors[0].double()
    if own == "sorted":
        x = x.sort(dim=0).values
    else:
        x[samples // 2] *= 40  # An outlier, so that some layers are flagged.
    if own == "nan":
        x[[3, samples - 2]] = torch.nan
    data = TensorDataset(x, dataset(samples).tensors[1])
    monitor = CKAMonitor(
        ["initial", "previous", "self", reference],
        layers,
        kernel=["linear", "rbf"],
        batch_size=4 if own == "small" else None,
        gram_batch_size={"small": 12, "joined": 24}.get(own),
        dataloader=None if own in (False, "small") else DataLoader(data, 8, shuffle=own in ("shuffled", "joined")),
        dirpath="figures",
        trajectory=(samples, own) == (4, False),
    )
    checkpoint = ModelCheckpoint("checkpoints", monitor="cka/initial/linear/mean", mode="max")
    trainer = L.Trainer(
        max_epochs=2,
        limit_train_batches=1,
        accelerator="cpu",
        devices=devices,
        strategy=strategy if devices > 1 else "auto",
        callbacks=[monitor, checkpoint],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(data, batch_size=16)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model, loader, loader)
    return {
        "warnings": sorted(str(w.message) for w in caught if "CKA" in str(w.message)),
        "diagnostics": [repr(results[-1].diagnostics) for results in monitor.results.values()],
        "rank": trainer.global_rank,
        "matrices": {name: [r.matrix.tolist() for r in results] for name, results in monitor.results.items()},
        "errors": {name: errors(results) for name, results in monitor.results.items()},
        "samples": [r.num_samples for r in monitor.results["initial/linear"]],
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("cka/")},
    }


def errors(results):
    """Return the errors of two results and of their difference, and what they come from. All processes agree."""
    kept = [each.left_out_batches for each in results]
    found = {
        "batches": [each.batches for each in kept],
        "standard_error": [each.standard_error.tolist() for each in results],
        "mean": [each.mean_standard_error for each in results],
        "left out": [each.values.tolist() for each in kept],
        "difference": [
            later.difference(earlier).standard_error.diagonal().tolist()
            for earlier, later in pairwise(results)
            if not later.self_comparison
        ],
    }
    assert len(set(map(repr, all_gather_objects(found)))) == 1
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int)
    parser.add_argument("--strategy", default="ddp")
    parser.add_argument("--layers", default=None)
    parser.add_argument(
        "--scenarios",
        default="[[64, false]]",
        help="JSON: number of samples, and kind of dataloader= or of forward passes, or false",
    )
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    scenarios = json.loads(args.scenarios)
    contents = [run(args.devices, args.strategy, *scenario, args.layers) for scenario in scenarios]
    if contents[0]["rank"] == 0:
        # Only rank 0 calls this, so it must not wait for other processes.
        model, batches = Net(), [x for x, _ in DataLoader(dataset(64), batch_size=16)]
        alone = compare_models(model, model, batches, progress_bar=False)
        contents.append({"alone": [alone.num_samples, alone.matrix.diagonal().tolist()]})
        Path(f"out-{args.devices}.json").write_text(json.dumps(contents))


if __name__ == "__main__":
    main()
