"""Models for tests, and functions that show them a few batches."""

import torch
from conftest import Net
from lightning_cka.hsic.products import half_vectors, inner_products
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.layers import check_layers
from lightning_cka.probe.show_probe_set import show_probe_set
from lightning_cka.probe.stream_probe import StreamProbe
from torch import nn

CPU = torch.device("cpu")


def plan_of(model, batches, layers=None, gram_batch_size=None, **kwargs):
    probe = StreamProbe(batches, 0, gram_batch_size=gram_batch_size)
    return dry_run(model, probe, check_layers(layers), ForwardSettings(CPU, **kwargs))


def grams_of(model, batches, layers=None, **kwargs):
    forward_settings, probe = ForwardSettings(CPU, **kwargs), StreamProbe(batches, 0)
    plan = dry_run(model, probe, check_layers(layers), forward_settings)
    bank = GramBank(plan.names, "model")
    show_probe_set(model, probe, plan, forward_settings, bank.add)
    return plan.names, {index: batch.grams for index, batch in bank.batches.items()}


def hsic(packed):
    vectors = half_vectors(packed, unbiased=True)
    scales = packed.scales.double().square()
    return inner_products(vectors, vectors)[0] * scales[:, None] * scales


class Tokens(nn.Module):
    """Has a sequence-first layer, a tuple, a repeated layer, one that never runs, and noise in forward."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.lstm = nn.LSTM(8, 5)
        self.again = nn.Linear(5, 5)
        self.position = nn.Embedding(4, 8)
        self.never = nn.Linear(2, 2)

    def forward(self, x):
        x = self.embed(x) + self.position(torch.arange(4)) + 0.1 * torch.randn(8)
        x = x.transpose(0, 1)
        x, _ = self.attention(x, x, x)
        x, _ = self.lstm(x)
        return self.again(self.again(x))


class Takes(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.layer, self.fn = nn.Linear(3, 3), fn

    def forward(self, x, mask=None):
        return self.fn(self.layer(x), mask)


def two_models():
    """Return two models on 8 inputs."""
    torch.manual_seed(1)
    return Net().eval(), nn.Sequential(nn.Linear(8, 20), nn.Tanh(), nn.Linear(20, 12)).eval()
