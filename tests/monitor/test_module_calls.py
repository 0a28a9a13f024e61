"""Modules that are shared, called several times, never called, changed in place, or random."""

import random

import numpy as np
import pytest
import torch
from conftest import trainer
from lightning.pytorch import seed_everything
from lightning_cka import CKAMonitor
from observed import Wrapped, assert_same, expected_matrix, monitored_result
from sequence_data import vectors
from torch import nn
from torch.utils.data import DataLoader

pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


class Shared(nn.Module):
    """One module under two names, called twice, and another module with the same weight."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(6, 6)
        self.same = self.encoder
        self.tied, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.tied.weight = self.encoder.weight

    def forward(self, x):
        return self.head(self.tied(self.same(self.encoder(x).relu()).relu()))


def test_shared_and_repeated_modules():
    module = Wrapped(Shared())
    with pytest.warns(UserWarning, match="several times in one forward are compared at their first call: net.encoder"):
        result = monitored_result(module, vectors())
    reads = dict.fromkeys(("net.encoder", "net.tied", "net.head"), lambda output, _: output)
    assert result.layers == tuple(reads)
    assert_same(result, expected_matrix(module, vectors(), reads))
    with pytest.raises(
        ValueError, match=r"layer 'net.same' is the same module as 'net.encoder': choose it by that name"
    ):
        monitored_result(module, vectors(), layers=["net.same", "net.head"])


class Functional(nn.Module):
    """The weights of `second` are used without calling it."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(nn.functional.linear(self.first(x).relu(), self.second.weight, self.second.bias))


def test_modules_that_are_never_called_raise_before_training(caplog):
    steps = []

    class CountSteps(Wrapped):
        def on_train_batch_start(self, batch, batch_idx):
            steps.append(batch_idx)

    with pytest.raises(ValueError, match=r"layer 'net.second' \(Linear\) did not run in forward.*Choose other layers"):
        monitored_result(CountSteps(Functional()), vectors(), layers=["net.first", "net.second"])
    assert not steps
    assert monitored_result(CountSteps(Functional()), vectors(), layers="net.*").layers == ("net.first", "net.head")
    assert "CKA leaves out of layers=: layer 'net.second' (Linear) did not run in forward" in caplog.text


class Residual(nn.Module):
    """Operations after a hooked layer: in place, or out of place."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace
        self.first, self.norm, self.act = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=inplace)
        self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = self.act(self.norm(self.first(x)))
        if not self.inplace:
            return self.head((self.second(y) + x).relu())
        z = self.second(y)
        z += x
        return self.head(z.relu_())


def test_in_place_operations_after_a_layer_do_not_change_its_features():
    results = []
    for inplace in (True, False):
        torch.manual_seed(0)
        results.append(monitored_result(Wrapped(Residual(inplace)), vectors()))
    assert results[0].layers == ("net.first", "net.norm", "net.second", "net.head")
    assert torch.equal(results[0].matrix, results[1].matrix)


class Noisy(nn.Module):
    """Draws from all random generators, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.layer(x + 0.1 * torch.randn_like(x)) * random.random()
        return self.head(x + float(np.random.rand()))


def test_a_forward_with_noise_trains_as_without_the_callback():
    weights, draws = [], []
    for callbacks in ([], [CKAMonitor(["initial", "self", Wrapped(Noisy())])]):
        seed_everything(3, verbose=False)
        module = Wrapped(Noisy())
        loader = DataLoader(vectors(), batch_size=8, shuffle=True)
        trainer(*callbacks, max_epochs=2).fit(module, loader, DataLoader(vectors(), batch_size=8))
        weights.append(module.state_dict())
        draws.append((torch.rand(()).item(), random.random(), np.random.rand()))
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert draws[0] == draws[1]
