"""CKA as the monitor computes it, and the same CKA from activations collected without the package's hooks."""

from __future__ import annotations

import lightning as L
import torch
from conftest import trainer
from lightning_cka import CKAMonitor, MinibatchCKA
from lightning_cka.probe.seeded_sampling import draw_probe_set
from torch import Tensor, nn
from torch.utils.data import DataLoader


class Wrapped(L.LightningModule):
    """A LightningModule around a network, as people write it; the loss is the mean square of the output."""

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


def monitored_result(module, data, collate_fn=None, layers=None, reference="self", batch_size=8, **kwargs):
    """Return the monitor's result after one epoch of training."""
    monitor = CKAMonitor(reference, layers, **kwargs)
    loader = DataLoader(data, batch_size=batch_size, collate_fn=collate_fn)
    trainer(monitor, max_epochs=1).fit(module, loader, loader)
    (results,) = monitor.results.values()
    return results[-1]


def expected_matrix(module, data, reads, collate_fn=None, show=lambda module, batch: module(batch[0]), batch_size=8):
    """Return the self-comparison of a module with its present weights, on the monitor's probe set.

    Args:
        module: The module.
        data: The dataset that the probe set is drawn from.
        reads: By layer name, a function of the layer's output and the batch that returns features (n, ...).
        collate_fn: The collate function of the loader.
        show: A function of the module and a batch that runs the module.
        batch_size: The batch size of the loader.
    """
    probe = draw_probe_set(DataLoader(data, batch_size=batch_size, collate_fn=collate_fn))
    return matrix_on_batches(module, [batch.data for batch in probe.batches()], reads, show)


def matrix_on_batches(module, batches, reads, show):
    """Return the self-comparison of a module on these batches; the arguments are those of `expected_matrix`."""
    metric = MinibatchCKA(list(reads))
    module.eval()
    for batch in batches:
        metric.update(layer_features(module, batch, reads, show))
    module.train()
    return metric.compute()


def layer_features(module, batch, reads, show):
    """Return the features of each layer on one batch, by layer name."""
    features = {}

    def hook_for(name):
        def hook(_module, _args, output):
            if name not in features:  # A layer that is called several times is compared at its first call.
                features[name] = reads[name](output, batch).clone()

        return hook

    handles = [module.get_submodule(name).register_forward_hook(hook_for(name)) for name in reads]
    with torch.no_grad():
        show(module, batch)
    for handle in handles:
        handle.remove()
    return features


def assert_same(result, matrix, atol=1e-5):
    torch.testing.assert_close(result.matrix, matrix, rtol=0, atol=atol)
