"""Run by test_paired_references.py: a wrapped backbone against a bare one, by one process or by two."""

import json
import sys
from pathlib import Path

import lightning as L
import torch
from conftest import Net, loaders
from lightning_cka import CKAMonitor


class Wrapped(Net):
    """A model whose weights do not depend on the data, so that they are the same with any number of processes."""

    def __init__(self):
        super().__init__()
        self.bert, self.net = self.net, None

    def forward(self, x):
        return self.head(self.bert(x))

    def training_step(self, batch, batch_idx):
        return sum(p.square().sum() + p.sum() for p in self.parameters())


def main(devices, pair):
    torch.set_num_threads(1)
    L.seed_everything(0, workers=True, verbose=False)
    model, reference = Wrapped().double(), Net().net.double()
    monitor = CKAMonitor(
        {"pretrained": reference},
        ["bert.*", "head"],
        reference_layers=["*", "!5"],
        pair=json.loads(pair),
        dirpath="cka",
    )
    trainer = L.Trainer(
        max_epochs=2,
        limit_train_batches=2,  # The same number of steps for any number of processes.
        accelerator="cpu",
        devices=int(devices),
        strategy="ddp" if int(devices) > 1 else "auto",
        precision="64-true",
        callbacks=[monitor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, *loaders())
    metrics = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("cka/pretrained")}
    result = monitor.results["pretrained"][-1]
    content = [metrics, dict(result.paired().layers), result.mean_standard_error]
    Path(f"out-{devices}-{trainer.global_rank}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main(*sys.argv[1:])
