"""A model that was moved gets its own tensors back."""

import torch
from lightning_cka.runtime.placement import kept_placement, on_device
from torch import nn


def test_digits_memory_and_gradients_are_restored():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model(torch.randn(4, 3)).sum().backward()
    tensors = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in model.parameters())]
    before = [(tensor.data_ptr(), tensor.clone()) for tensor in tensors]
    with kept_placement(model):
        model.to(torch.bfloat16)
        assert model[0].weight.dtype == torch.bfloat16
    after = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in model.parameters())]
    for tensor, same, (pointer, values) in zip(after, tensors, before, strict=True):
        assert tensor is same
        assert tensor.data_ptr() == pointer
        assert torch.equal(tensor, values)


def test_a_model_is_moved_for_a_while():
    model = nn.Linear(3, 2)
    weight = model.weight
    with on_device(model, torch.device("meta")):
        assert model.weight.is_meta
    assert model.weight is weight
    assert weight.device.type == "cpu"
