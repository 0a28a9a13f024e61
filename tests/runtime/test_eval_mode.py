"""`temporary_eval_mode` restores the model and torch's modes, also after an error."""

import pytest
import torch
from lightning_cka.runtime.eval_mode import temporary_eval_mode
from torch import nn
from torchmetrics import MeanMetric


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.frozen = nn.Dropout().eval()
        self.metric = MeanMetric()
        self.register_buffer("cache", None)


def spoil(model):
    """Change everything that a forward pass can change."""
    model.norm.running_mean += 1
    model.norm.num_batches_tracked = torch.tensor(7)
    model.cache = torch.ones(2)
    model.register_buffer("late", torch.ones(1))
    model.metric.update(100.0)
    model.norm.train()
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("fail", [False, True])
def test_everything_is_restored(fail):
    model = Model()
    model.metric.update(5.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffer, state = model.norm.running_mean, model.metric.mean_value
    torch.backends.mha.set_fastpath_enabled(True)

    def run():
        with temporary_eval_mode(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            assert not torch.backends.mha.get_fastpath_enabled()
            spoil(model)
            if fail:
                raise RuntimeError("inside")

    if fail:
        with pytest.raises(RuntimeError, match="inside"):
            run()
    else:
        run()
    assert (model.training, model.norm.training, model.frozen.training) == (True, True, False)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.norm.running_mean is buffer
    assert model.cache is None
    assert model.metric.mean_value is state
    assert (model.metric.compute(), model.metric.update_count) == (5, 1)
    assert torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


def test_results_made_in_inference_mode_are_usable_outside_it():
    linear = nn.Linear(3, 2)
    with torch.inference_mode(), temporary_eval_mode(linear):
        output = linear(torch.ones(1, 3))
    assert not output.is_inference()


def test_buffers_made_in_inference_mode_are_restored():
    model = nn.BatchNorm1d(3)
    with torch.inference_mode():
        model.running_mean = torch.zeros(3)
    with temporary_eval_mode(model):
        model.running_mean = torch.ones(3)
    assert torch.equal(model.running_mean, torch.zeros(3))


def test_compiled_modules_run_their_hooks():
    compiled = torch.compile(nn.Sequential(nn.Linear(3, 2)), backend="eager")
    compiled(torch.ones(1, 3))
    calls = []
    compiled.get_submodule("_orig_mod.0").register_forward_hook(lambda *args: calls.append(1))
    with temporary_eval_mode(compiled):
        compiled(torch.ones(1, 3))
        assert calls == [1]  # Afterwards, what the hook wrote is taken back.


class Scripted(nn.Module):
    calls: int

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.count = self.count + 1
        return self.norm(x)


def exported():
    return torch.export.export(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), (torch.ones(4, 3),)).module()


UNUSUAL = {
    "scripted": lambda: torch.jit.script(Scripted()),
    "traced": lambda: torch.jit.trace(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), torch.ones(2, 3)),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval())),
    "fx": lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))),
    "exported": exported,
    "quantized": lambda: torch.ao.nn.quantized.dynamic.Linear(3, 3),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", UNUSUAL.values(), ids=UNUSUAL)
def test_modules_that_are_not_ordinary_are_restored(make):
    model = nn.Sequential(nn.Linear(3, 3), make())
    modes = [getattr(module, "training", None) for module in model.modules()]
    before = {name: value.clone() for name, value in model.named_buffers()}
    objects = dict(model.named_buffers())
    with temporary_eval_mode(model):
        assert not any(getattr(module, "training", False) for module in model.modules())
        model(torch.randn(4, 3))
        for buffer in model.buffers():
            buffer.add_(1)
    assert [getattr(module, "training", None) for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert all(value is objects[name] for name, value in model.named_buffers())
    assert getattr(model[1], "calls", 0) == 0


class Strict(nn.Linear):
    """Cannot be assigned to after its construction, but has a method that sets its mode."""

    def __setattr__(self, name, value):
        if name == "training" and "weight" in self._parameters:
            raise AttributeError("use train()")
        super().__setattr__(name, value)

    def train(self, mode=True):
        self.__dict__["training"] = mode
        return self


def test_a_mode_that_cannot_be_assigned_is_set_by_its_method():
    model = nn.Sequential(Strict(3, 3))
    with temporary_eval_mode(model) as kept:
        assert not model[0].training
    assert model[0].training
    assert kept.attributes.left_alone == []


def test_a_mode_that_cannot_be_set_is_named(monkeypatch):
    monkeypatch.delattr(Strict, "train")
    with temporary_eval_mode(nn.Sequential(Strict(3, 3))) as kept:
        pass
    assert kept.attributes.left_alone == ["the training mode of Strict"]


def test_a_buffer_that_is_resized_or_gets_other_memory_is_restored():
    model, other = nn.Module(), torch.ones(3)
    model.register_buffer("grows", torch.zeros(0))
    model.register_buffer("moves", torch.zeros(3))
    with temporary_eval_mode(model):
        model.grows.resize_(4).fill_(1)
        model.moves.data = other
    assert model.grows.shape == (0,)
    assert torch.equal(model.moves, torch.zeros(3))
    assert torch.equal(other, torch.ones(3))


class Accumulates(nn.Module):
    """Writes to a buffer, to an attribute and to a parameter, also in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.register_buffer("mean", torch.rand(3))
        self.cache = torch.rand(3)

    def forward(self, x):
        with torch.no_grad():
            self.mean.mul_(0.9)
            self.cache.mul_(0.9)
            self.linear.weight.mul_(0.9)
        return self.norm(self.linear(x * self.mean.clone()) * self.cache.clone())


def test_a_graph_that_is_older_than_the_block_can_still_be_used():
    model, x = Accumulates(), torch.randn(8, 3)

    def gradient(between):
        model.zero_grad()
        loss = (model.norm(model.linear(x * model.mean)) * model.cache).square().sum() + model.linear.weight.sin().sum()
        between()
        loss.backward()
        return [p.grad.clone() for p in model.parameters()]

    def show():
        with temporary_eval_mode(model, parameters=None):
            model(x)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):  # Without the block.
        gradient(lambda: model(x))
    model = Accumulates()
    assert all(map(torch.equal, gradient(show), gradient(lambda: None)))


def test_a_buffer_that_repeats_its_entries_is_restored():
    model = nn.Module()
    model.register_buffer("mask", torch.arange(3.0).expand(4, 3))
    with temporary_eval_mode(model):
        model.mask[0] += 1
    assert torch.equal(model.mask, torch.arange(3.0).expand(4, 3))
