"""The comparison that every package makes: a live model, whose weights change, with frozen references."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning_cka.runtime.module_names import named_layers
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.epoch import bare_forward
from benchmarks.exact import ExactCKA
from benchmarks.live_monitor import LiveMonitor
from benchmarks.networks import Lit
from benchmarks.timing import peak_memory, timed

EPOCHS = 5


@dataclass
class Task:
    """What every package compares.

    Attributes:
        live: The monitor of the live model.
        names: Names of the layers, in the order in which they run.
        references: The frozen models.
        weights: The weights of the live model before the first epoch.
        loader: Loads all batches.
        one_batch: Loads the last batch.
        exact: The values of the comparison with the first reference.
        bare_peak: Peak bytes of a forward pass without any comparison.
        limit_s: The longest time of one run.
    """

    live: LiveMonitor
    names: list[str]
    references: list[Lit]
    weights: dict[str, torch.Tensor]
    loader: DataLoader
    one_batch: DataLoader
    exact: ExactCKA
    bare_peak: int
    limit_s: float

    @classmethod
    def prepare(cls, live, network, num_references, limit_s):
        """Make the references, the loaders and the exact values."""
        module, batches, device = live.module, live.batches, live.device
        # Two of the packages return their matrices in the order in which layers run, whatever order they are given.
        names = order_of_running(module, live.names, batches[0].to(device))
        references = [Lit(network.make()).to(device) for _ in range(num_references)]
        return cls(
            live=live,
            names=names,
            references=references,
            weights={key: value.clone() for key, value in module.state_dict().items()},
            loader=DataLoader(TensorDataset(torch.cat(batches)), batch_size=network.batch),
            one_batch=DataLoader(TensorDataset(batches[-1]), batch_size=network.batch),
            exact=ExactCKA(module, references[0], batches, names, device),
            # The peak does not depend on the number of batches.
            bare_peak=peak_memory(lambda: bare_forward(live, batches[:1]), device),
            limit_s=limit_s,
        )

    @property
    def device(self):
        """The device of the models."""
        return self.live.device

    @property
    def num_batches(self):
        """The number of batches of each comparison."""
        return len(self.live.batches)

    def time_epochs(self, compare):
        """Return the seconds of the comparisons alone, with other weights of the live model in each epoch."""
        self.live.module.load_state_dict(self.weights)
        total = 0.0
        for epoch in range(EPOCHS):
            change_weights(self.live.module, epoch)
            total += timed(compare, self.device)
        return total


def order_of_running(model, names, x):
    """Return the names in the order in which the layers run."""
    modules, order = named_layers(model), []
    handles = [
        modules[name].register_forward_hook(lambda _module, _args, _output, name=name: order.append(name))
        for name in names
    ]
    with torch.no_grad():
        model.eval()(x)
    model.train()
    for handle in handles:
        handle.remove()
    return order


def change_weights(module, epoch):
    """Change the weights by about 1 %, in the same way for every package."""
    generator = torch.Generator().manual_seed(epoch)
    with torch.no_grad():
        for parameter in module.parameters():
            factor = 1 + 0.01 * torch.randn(parameter.shape, generator=generator)
            parameter.mul_(factor.to(parameter.device))
