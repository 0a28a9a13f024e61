"""Parameters that a forward pass writes to are found and restored, however it writes to them."""

import pytest
import torch
from lightning_cka.runtime import written_parameters
from lightning_cka.runtime.eval_mode import temporary_eval_mode
from lightning_cka.runtime.written_parameters import ParameterSnapshot
from torch import nn


class Part(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.embedding = nn.Embedding(50, 16, max_norm=0.5)
        self.linear = nn.Linear(16, 8, dtype=dtype)
        self.convolution = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
        self.hidden = [nn.Linear(8, 8)]
        self.listed = [nn.Parameter(torch.randn(7))]


WRITES = {
    "embedding.weight": lambda part: part.embedding(torch.arange(20)),
    "linear.weight": lambda part: part.linear.weight.clamp_(-0.1, 0.1),
    "linear.bias": lambda part: part.linear.bias.data.mul_(0.5),  # `data` counts no writes.
    "convolution.weight": lambda part: part.convolution.weight.data.div_(2),
    "convolution.bias": lambda part: setattr(part.convolution.bias, "data", part.convolution.bias.data[:1] * 2),
    "Part.hidden.weight": lambda part: part.hidden[0].weight.data.add_(1),
    "Part.listed": lambda part: part.listed[0].data.add_(1),
}


def all_parameters(part):
    return [*part.parameters(), *part.hidden[0].parameters(), *part.listed]


@pytest.mark.parametrize("name", WRITES)
def test_a_parameter_that_is_written_to_is_named_and_restored(name):
    part = Part()
    before = [(p, p.detach().clone(), p.data_ptr()) for p in all_parameters(part)]
    with temporary_eval_mode(part, parameters=None) as kept:
        assert kept.parameters.written().names == []
        WRITES[name](part)
        assert kept.parameters.written() == ([name], [])
    for now, (p, values, pointer) in zip(all_parameters(part), before, strict=True):
        assert now is p
        assert torch.equal(now, values)
        assert now.data_ptr() == pointer


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64, torch.complex128, torch.float16])
def test_dtypes(dtype):
    part = Part(dtype)
    before = part.linear.weight.detach().clone()
    with temporary_eval_mode(part, parameters=None) as kept:
        part.linear.weight.data[0, 0] *= 2
        assert kept.parameters.written().names == ["linear.weight"]
    assert torch.equal(part.linear.weight, before)


def test_only_named_parameters_are_copied():
    weights = {"a": nn.Parameter(torch.ones(4)), "b": nn.Parameter(torch.ones(4)), "c": nn.Parameter(torch.ones(4))}
    snapshot = ParameterSnapshot(weights.items(), ["a"])
    for weight in weights.values():
        weight.data.mul_(2)
    weights["c"].data = torch.zeros(4)
    assert snapshot.written().lost == ["b", "c"]
    snapshot.restore()
    assert [weight.tolist() for weight in weights.values()] == [[1.0] * 4, [2.0] * 4, [2.0] * 4]


def test_other_memory_is_put_back_without_a_copy():
    weight = nn.Parameter(torch.ones(4))
    snapshot = ParameterSnapshot([("weight", weight)], [])
    weight.data = torch.zeros(4)
    assert snapshot.written() == (["weight"], [])
    snapshot.restore()
    assert weight.tolist() == [1.0] * 4


def test_what_does_not_fit_is_not_copied(monkeypatch):
    monkeypatch.setattr(written_parameters, "MAX_COPIED_BYTES", 40)
    weights = {name: nn.Parameter(torch.ones(6)) for name in "ab"}
    snapshot = ParameterSnapshot(weights.items(), None)
    for weight in weights.values():
        weight.data.mul_(2)
    assert snapshot.written() == (["a", "b"], ["b"])


def test_parameters_without_values_are_left_alone():
    lazy = nn.LazyLinear(3)
    weights = [("lazy", lazy.weight), ("meta", nn.Parameter(torch.ones(3, device="meta")))]
    weights += [("empty", nn.Parameter(torch.ones(0))), ("sparse", nn.Parameter(torch.eye(3).to_sparse()))]
    shared = nn.Parameter(torch.ones(3))
    snapshot = ParameterSnapshot([*weights, ("one", shared), ("two", shared)], None)
    shared.data.add_(1)
    assert snapshot.written().names == ["one"]
    snapshot.restore()
    assert shared.tolist() == [1.0] * 3


def test_a_parameter_that_was_made_in_inference_mode():
    with torch.inference_mode():
        weight = nn.Parameter(torch.ones(3), requires_grad=False)
    snapshot = ParameterSnapshot([("weight", weight)], None)
    with torch.inference_mode():
        weight.add_(1)
    assert snapshot.written().names == ["weight"]
    snapshot.restore()
    assert weight.tolist() == [1.0] * 3
