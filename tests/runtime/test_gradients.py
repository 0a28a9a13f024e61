"""A forward pass leaves gradients as they are."""

import torch
from lightning_cka.runtime.eval_mode import temporary_eval_mode
from torch import nn


def test_gradients_and_requires_grad_are_put_back():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()
    model[1].bias.grad = None
    kept = [(p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    with temporary_eval_mode(model):
        assert all(p.grad is None for p in model.parameters())
        with torch.enable_grad():
            model(torch.ones(1, 2)).square().sum().backward()
        model[0].requires_grad_(False)
        model[1].weight.requires_grad_(False)
    assert all(p.requires_grad for p in model.parameters())
    for p, (gradient, values) in zip(model.parameters(), kept, strict=True):
        assert p.grad is gradient
        assert gradient is None or torch.equal(gradient, values)


def test_parameters_that_were_frozen_stay_frozen():
    model = nn.Linear(2, 2).requires_grad_(False)
    with temporary_eval_mode(model):
        model.requires_grad_(True)
    assert not any(p.requires_grad for p in model.parameters())
