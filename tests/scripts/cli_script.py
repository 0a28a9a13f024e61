"""Run by test_namespaces.py: a LightningCLI of the namespace in the first argument."""

import importlib
import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

# When pytest imports this file, there is no such argument.
namespace = sys.argv.pop(1) if __name__ == "__main__" else "lightning.pytorch"
L = importlib.import_module(namespace)


class Net(L.LightningModule):
    def __init__(self, width: int = 8):
        super().__init__()
        self.first, self.second = nn.Linear(8, width), nn.Linear(width, 3)

    def forward(self, x):
        return self.second(self.first(x).relu())

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(L.LightningDataModule):
    def val_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(64, 8, generator=generator)
        return DataLoader(TensorDataset(x, torch.randint(0, 3, (64,), generator=generator)), batch_size=8)

    train_dataloader = val_dataloader


if __name__ == "__main__":
    cli = importlib.import_module(f"{namespace}.cli")
    run = cli.LightningCLI(Net, Data, seed_everything_default=0)
    results = run.trainer.callbacks[0].results
    rows = {name: [result.matrix.tolist() for result in history] for name, history in results.items()}
    Path(f"{namespace}.json").write_text(json.dumps(rows))
