"""Run by test_strategies.py: train a small network; rank 0 writes matrices and weights to a file.

The word "then" separates the arguments of several runs, which saves the time of starting processes. All processes see
the same training batches, so the weights are the same as with one process.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import lightning as L
import torch
from conftest import blank_figures, dataset
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning_cka import CKAMonitor, FreezeConverged, Thresholds
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.data import DataLoader, Dataset, TensorDataset


class Late(L.LightningModule):
    """A network whose layers are created in ``configure_model``, and sharded if the strategy has a device mesh."""

    def __init__(self, *, compiled=False):
        super().__init__()
        self.net, self.compiled = None, compiled
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def configure_model(self):
        if self.net is not None:
            return
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).double()
        if self.device_mesh is None:
            return
        if self.device_mesh["tensor_parallel"].size() > 1:
            plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
            parallelize_module(self.net, self.device_mesh["tensor_parallel"], plan)
        else:
            for layer in (self.net[0], self.net[2], self.net):
                fully_shard(layer, mesh=self.device_mesh["data_parallel"])
            if self.compiled:
                self.net = torch.compile(self.net, backend="eager")

    def on_train_start(self):
        """Change the weights after the monitor's pass. If that left gathered weights, the change would be lost."""
        if self.global_step == 0:
            with torch.no_grad():
                getattr(self.net, "_orig_mod", self.net)[4].weight.mul_(3)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


# It is in the last batch of the probe set, which the second process gets.
BAD_SAMPLE = int(torch.randperm(32, generator=torch.Generator().manual_seed(0))[-1])


class Faulty(Dataset):
    """Reading one sample raises, or ends the worker process."""

    def __init__(self, fault):
        self.fault = fault

    def __len__(self):
        return 32

    def __getitem__(self, index):
        if index == BAD_SAMPLE and self.fault == "raise":
            raise OSError("sample cannot be read")
        if index == BAD_SAMPLE and self.fault == "die":
            os._exit(3)
        return torch.ones(8, dtype=torch.float64) * index, index % 3


def validation_loader(kind, rank, samples):
    """Return validation data, with a fault or without."""
    if kind == "raise":
        return DataLoader(Faulty(kind), batch_size=8)
    if kind == "die":
        # A worker that prepared two batches could die while the first one is on its way, with another error.
        return DataLoader(Faulty(kind), batch_size=8, num_workers=1, prefetch_factor=1)
    some = {"empty on 1": 0, "few on 1": 8}.get(kind, samples)
    x, y = dataset(some if rank else samples).tensors
    return DataLoader(TensorDataset(x.double(), y), batch_size=8)


def parse(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int)
    parser.add_argument("--strategy", default="fsdp2")
    parser.add_argument("--references", default='["initial"]', help="JSON")
    parser.add_argument("--samples", type=int, default=36)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--gram-batch-size", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--validation", default="")
    parser.add_argument("--own-dataloader", action="store_true")
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--freeze", type=float, default=None, help="tolerance of FreezeConverged")
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    return parser.parse_args(words)


def main(words):
    before = Path.cwd()
    try:
        while words:
            end = words.index("then") if "then" in words else len(words)
            train(parse(words[:end]))
            words = words[end + 1 :]
    finally:
        os.chdir(before)


def train(args):
    os.chdir(args.folder)
    torch.set_num_threads(1)
    strategies = {
        "fsdp2": ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1),
        "tensor parallel": ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=2),
    }
    x, y = dataset(args.samples).tensors
    loader = DataLoader(TensorDataset(x.double(), y), batch_size=8)
    references = [Late() if reference == "module" else reference for reference in json.loads(args.references)]
    own = loader if args.own_dataloader else None
    sizes = {"batch_size": args.batch_size, "gram_batch_size": args.gram_batch_size}
    freezes = [] if args.freeze is None else [FreezeConverged(args.freeze, patience=2)]
    thresholds = Thresholds.off() if freezes else None
    monitors = []
    if references:
        monitors = [CKAMonitor(references, dirpath="cka", dataloader=own, thresholds=thresholds, **sizes)]
    trainer = L.Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        devices=args.devices,
        strategy=strategies.get(args.strategy, args.strategy) if args.devices > 1 else "auto",
        use_distributed_sampler=False,
        callbacks=[*freezes, *monitors, ModelCheckpoint("checkpoints", filename="{epoch}", save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    model = Late(compiled=args.compile)
    rank = int(os.environ.get("LOCAL_RANK", 0))
    with blank_figures():
        trainer.fit(model, loader, validation_loader(args.validation, rank, args.samples), ckpt_path=args.checkpoint)
    is_sharded = args.strategy == "fsdp2" and args.devices > 1
    whole = {key: value.full_tensor() if is_sharded else value for key, value in model.state_dict().items()}
    if trainer.global_rank == 0:
        results = monitors[0].results if monitors else {}
        matrices = {name: [result.matrix.tolist() for result in history] for name, history in results.items()}
        weights = {key: value.tolist() for key, value in whole.items()}
        frozen = freezes[0].frozen if freezes else {}
        trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        content = {"matrices": matrices, "weights": weights, "frozen": frozen, "trained": trained}
        Path("out.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main(sys.argv[1:])
