"""Run by test_distributed.py: train a small network in several scenarios; rank 0 writes the results to a file.

The weights do not depend on the data, so they are the same with any number of processes.
"""

import argparse
import json
import warnings
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import lightning as L
import torch
from conftest import Net, blank_figures, dataset
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_cka import CKAMonitor, compare_models
from lightning_cka.decisions.redundancy import redundancy
from lightning_cka.runtime.collectives import all_gather_objects
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Deterministic(Net):
    def training_step(self, batch, batch_idx):
        return sum(p.square().sum() + p.sum() for p in self.parameters())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class OfTokens(Deterministic):
    """A network of sequences: three layers of tokens (n, T, d), and one of vectors (n, d)."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16))

    def forward(self, x, attention_mask):
        return self.head(self.net(x).mean(1))

    def validation_step(self, batch, batch_idx):
        self(**batch)


def sequences(x):
    """Return a sequence of 2 to 6 tokens for each sample, padded to 6."""
    generator = torch.Generator().manual_seed(1)
    tokens = x[:, None] + torch.randn(len(x), 6, x.shape[1], generator=generator)
    lengths = torch.randint(2, 7, (len(x), 1), generator=generator)
    masks = (torch.arange(6) < lengths).long()
    return [{"x": row, "attention_mask": mask} for row, mask in zip(tokens, masks, strict=True)]


def run(devices, strategy, samples, own, layers):
    L.seed_everything(0, workers=True, verbose=False)
    model, reference = (OfTokens(), OfTokens()) if own == "tokens" else (Deterministic(), Net())
    model, reference = model.double(), reference.double()
    x = dataset(samples).tensors[0].double()
    if own == "sorted":
        x = x.sort(dim=0).values
    else:
        x[samples // 2] *= 40  # An outlier, so that some layers are flagged.
    if own == "nan":
        x[[3, samples - 2]] = torch.nan
    data = sequences(x) if own == "tokens" else TensorDataset(x, dataset(samples).tensors[1])
    loader = DataLoader(data, batch_size=16)

    def fit(model, *callbacks, **options):
        trainer = L.Trainer(
            limit_train_batches=1,
            accelerator="cpu",
            devices=devices,
            strategy=strategy if devices > 1 else "auto",
            callbacks=list(callbacks),
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        trainer.fit(model, loader, loader)
        return trainer

    seeds = [f"seed{seed}" for seed in range(3)] if own == "ceiling" else []
    for seed, folder in enumerate(seeds):
        torch.manual_seed(seed + 1)  # A fit draws other random numbers with other numbers of processes.
        fit(Deterministic().double(), CKAMonitor("initial", dirpath=folder, save_banks=True), max_epochs=1)
    monitor = CKAMonitor(
        ["initial", "previous", "self", reference],
        layers,
        kernel=["linear", "rbf"],
        batch_size=4 if own in ("small", "tokens") else None,
        gram_batch_size={"small": 12, "joined": 24, "tokens": 8}.get(own),
        feature_fn="tokens:3" if own == "tokens" else None,
        dataloader=None
        if own in (False, "small", "tokens", "steps", "ceiling")
        else DataLoader(data, 8, shuffle=own in ("shuffled", "joined")),
        dirpath="figures",
        trajectory=(samples, own) == (4, False),
        log_changes=True,
        log_ranks=True,
        tolerance=0.95,
        patience=1,
        every_n_train_steps=1 if own == "steps" else None,
        ceiling=seeds or None,
    )
    checkpoint = ModelCheckpoint("checkpoints", monitor="cka/initial/linear/mean", mode="max")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit(model, monitor, checkpoint, max_epochs=2)
    return {
        "warnings": sorted(str(w.message) for w in caught if "CKA" in str(w.message)),
        "diagnostics": [repr(results[-1].diagnostics) for results in monitor.results.values()],
        "rank": trainer.global_rank,
        "matrices": {name: [r.matrix.tolist() for r in results] for name, results in monitor.results.items()},
        "errors": {name: errors(results) for name, results in monitor.results.items()},
        "ranks": [list(rank) for r in monitor.results["initial/rbf"] for rank in r.ranks.layers.values()],
        "blocks": [redundancy(r).blocks for key in ("linear", "rbf") for r in monitor.results[f"self/{key}"]],
        "samples": [r.num_samples for r in monitor.results["initial/linear"]],
        "effective batches": [r.effective_batches for r in monitor.results["initial/linear"]],
        "converged": [list(each[:4]) for each in monitor.convergence().found],
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("cka")},
        "ceilings": {name: each.to_rows() for name, each in monitor.ceilings.items()},
        "keys of each process": all_gather_objects(sorted(trainer.callback_metrics)),
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
    with blank_figures(), patch("lightning_cka.monitor.logged_figures.write_animation"):
        contents = [run(args.devices, args.strategy, *scenario, args.layers) for scenario in scenarios]
    if contents[0]["rank"] == 0:
        # Only rank 0 calls this, so it must not wait for other processes.
        model, batches = Net(), [x for x, _ in DataLoader(dataset(64), batch_size=16)]
        alone = compare_models(model, model, batches, progress_bar=False)
        contents.append({"alone": [alone.num_samples, alone.matrix.diagonal().tolist()]})
        Path(f"out-{args.devices}.json").write_text(json.dumps(contents))


if __name__ == "__main__":
    main()
