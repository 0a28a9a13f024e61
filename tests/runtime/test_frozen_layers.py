"""Layers without gradients: which parameters, batch norms in eval mode, and everything as it was afterwards."""

import pytest
import torch
from lightning_cka.runtime.frozen_layers import FrozenLayers
from torch import nn


class Tied(nn.Module):
    """A token model whose head has the weights of the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.start = nn.Parameter(torch.zeros(4))
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        self.head = nn.Linear(4, 10)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.body(self.embedding(x) + self.start))


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_exactly_the_named_layers_are_frozen_and_trained_again():
    model = Tied()
    model.body[0].bias.requires_grad_(False)  # It stays so.
    before = trainable(model)
    model(torch.arange(10)).sum().backward()
    layers = FrozenLayers(model)
    layers.set(["body.0", "body.1"])
    assert before - trainable(model) == {"body.0.weight", "body.1.weight", "body.1.bias"}
    assert model.body[0].weight.grad is None
    assert model.body[2].weight.grad is not None
    layers.set(["body.1"])
    assert before - trainable(model) == {"body.1.weight", "body.1.bias"}
    layers.set(["body"])
    assert before - trainable(model) == {name for name in before if name.startswith("body")}
    layers.set([])
    assert trainable(model) == before


def test_held_layers_are_those_that_others_keep_from_training():
    model = Tied()
    layers = FrozenLayers(model)
    names = ["embedding", "body.0", "body.1", "head", "unknown"]
    model.body[0].requires_grad_(False)
    model.body[1].bias.requires_grad_(False)
    layers.set(["body.1"])
    assert layers.held(names) == ["body.0"]
    layers.set([])
    assert layers.held(names) == ["body.0"]
    model.body[0].bias.requires_grad_(True)
    assert layers.held(names) == []


def test_shared_parameters_stay_trainable_until_all_that_share_them_are_frozen():
    model = Tied()
    layers = FrozenLayers(model)
    layers.set(["embedding", "body.0"])
    assert "embedding.weight" in trainable(model)
    assert layers.shared(["embedding", "body.0"]) == ["embedding.weight"]
    assert layers.shared(["embedding", "head"]) == layers.shared(["body"]) == []
    layers.set(["embedding", "head"])
    assert trainable(model) == {"start", *(name for name in trainable(model) if name.startswith("body"))}


def test_batch_norms_of_frozen_layers_stay_in_eval_mode():
    model = Tied().train()
    layers = FrozenLayers(model)
    layers.set(["body.1"])
    layers.keep_in_eval()
    mean = model.body[1].running_mean.clone()
    model(torch.arange(10))
    assert torch.equal(model.body[1].running_mean, mean)
    assert [each.training for each in model.body] == [True, False, True]
    model.train()  # As Lightning does in some versions.
    layers.keep_in_eval()
    assert not model.body[1].training
    layers.set([])
    assert model.body[1].training
    model(torch.arange(10))
    assert not torch.equal(model.body[1].running_mean, mean)  # A positive control.


def test_batch_norms_that_were_in_eval_mode_stay_so():
    model = Tied()
    model.body[1].eval()
    layers = FrozenLayers(model)
    layers.set(["body.1"])
    layers.keep_in_eval()
    layers.set([])
    assert not model.body[1].training


@pytest.mark.parametrize(("split", "allowed"), [(None, 4), (["start"], 3), (["start", "embedding", "head"], 0)])
def test_each_optimizer_keeps_something_to_train(split, allowed):
    """The second optimizer has the parameters that are not in the first one."""
    model = Tied()
    names = ["body.0", "body.1", "body.2", "embedding"]
    own = [p for name, p in model.named_parameters() if split is None or name.split(".")[0] in split]
    rest = [p for p in model.parameters() if not any(p is each for each in own)]
    optimizers = [torch.optim.SGD(part, lr=0.1) for part in (own, rest) if part]
    if split == ["start"]:
        optimizers[1].param_groups[0]["params"] = [*model.body.parameters()]
        names = ["body.0", "body.1", "embedding", "body.2"]
    if allowed == 0:
        names = ["body"]
    assert FrozenLayers(model).number_allowed(names, optimizers) == allowed


def test_parameters_before_a_layer_are_found():
    model = Tied()
    layers, found = FrozenLayers(model), []
    model.body[2].register_forward_hook(lambda _module, _args, output: found.append(layers.reached_from({"x": output})))
    layers.set(["embedding", "body.0", "body.2"])
    model(torch.arange(10))
    assert set(found[0]) == {"embedding.weight", "start", "body.1.weight", "body.1.bias"}
    layers.set(["embedding", "head", "body"])
    model.start.requires_grad_(False)
    model(torch.arange(10))
    assert found[1] == []
