"""The CKA that a monitor logs, and the same from activations that are collected without the package's hooks."""

from __future__ import annotations

import lightning as L
import torch
from conftest import trainer
from lightning_cka import CKAMonitor, MinibatchCKA
from lightning_cka.probe.seeded_sampling import draw_probe_set
from torch import Tensor, nn
from torch.utils.data import DataLoader


class Wrapped(L.LightningModule):
    """A network in the way in which people wrap one, its loss being whatever comes out."""

    def __init__(self, net: nn.Module, lr: float = 0.01):
        super().__init__()
        self.net, self.lr = net, lr

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        output = self(**batch) if isinstance(batch, dict) else self(batch[0] if isinstance(batch, list) else batch)
        while not isinstance(output, Tensor):
            output = output[0]
        return output.float().square().mean()

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def logged(module, data, collate_fn=None, layers=None, reference="self", batch_size=8, **kwargs):
    """What the monitor gives after an epoch of training."""
    monitor = CKAMonitor(reference, layers, **kwargs)
    loader = DataLoader(data, batch_size=batch_size, collate_fn=collate_fn)
    trainer(monitor, max_epochs=1).fit(module, loader, loader)
    (results,) = monitor.results.values()
    return results[-1]


def collected(module, data, reads, collate_fn=None, show=lambda module, batch: module(batch[0]), batch_size=8):
    """CKA of the module as it is now, within the features that are made of each layer's output and the batch."""
    probe = draw_probe_set(DataLoader(data, batch_size=batch_size, collate_fn=collate_fn))
    return cka_within(module, [batch.data for batch in probe.batches()], reads, show)


def cka_within(module, batches, reads, show):
    """CKA of the module within the features that are made of each layer's output and the batch."""
    metric = MinibatchCKA(list(reads))
    module.eval()
    for batch in batches:
        features = {}

        def keeps(name, features=features, batch=batch):
            def keep(_module, _args, output):
                if name not in features:  # The first call counts.
                    features[name] = reads[name](output, batch).clone()

            return keep

        hooks = [module.get_submodule(name).register_forward_hook(keeps(name)) for name in reads]
        with torch.no_grad():
            show(module, batch)
        for hook in hooks:
            hook.remove()
        metric.update(features)
    module.train()
    return metric.compute()


def assert_same(result, matrix, atol=1e-5):
    torch.testing.assert_close(result.matrix, matrix, rtol=0, atol=atol)
