"""A model is shown the same inputs each time, and is restored afterwards."""

import warnings

import pytest
import torch
from example_models import CPU, Tokens, grams_of
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.show_probe_set import show_probe_set
from lightning_cka.probe.stream_probe import StreamProbe
from lightning_cka.runtime.checkpoint_weights import detached_copy
from torch import nn
from torchmetrics import MeanMetric


class Mutable(nn.Module):
    """Has all kinds of state that a forward pass can change."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.frozen = nn.BatchNorm1d(4).eval()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(1))
        self.register_buffer("cache", None)
        self.seen = MeanMetric()
        self.fail = False

    def forward(self, x):
        self.calls += 1
        self.cache = x
        self.register_buffer("late", x, persistent=False)
        self.seen.update(x.sum())
        self.last = x.mean().reshape(1)
        nn.functional.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True)
        if self.fail and self.calls > 2:
            raise RuntimeError("in forward")
        return self.frozen(self.norm(x)) + torch.rand(())


@pytest.mark.parametrize("fail", [False, True])
def test_everything_is_restored(fail):
    model, probe = Mutable(), StreamProbe([torch.randn(8, 4) + 3 for _ in range(4)], 0)
    last = model.last
    model.seen.update(5.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    plan = dry_run(model, probe, None, ForwardSettings(CPU))
    model.fail = fail
    if fail:
        with pytest.raises(RuntimeError, match="in forward"):
            show_probe_set(model, probe, plan, ForwardSettings(CPU), lambda *args: None)
    else:
        show_probe_set(model, probe, plan, ForwardSettings(CPU), lambda *args: None)
    assert (model.training, model.norm.training, model.frozen.training) == (True, True, False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.last is last
    assert model.cache is None
    assert "late" not in dict(model.named_buffers())
    assert (model.seen.compute(), model.seen.update_count) == (5, 1)
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_a_metric_of_the_training_loss_keeps_its_graph():
    model, probe = Mutable(), StreamProbe([torch.randn(8, 4) + 3], 0)
    weight = torch.ones((), requires_grad=True)
    loss = model.seen(2 * weight)
    total = model.seen.mean_value
    plan = dry_run(model, probe, None, ForwardSettings(CPU))
    show_probe_set(model, probe, plan, ForwardSettings(CPU), lambda *args: None)
    assert detached_copy(model).seen.compute() == 2
    assert model.seen.mean_value is total
    loss.backward()
    assert (weight.grad, model.seen.compute(), model.seen.update_count) == (2, 2, 1)


def test_the_model_is_in_evaluation_mode_without_gradients_and_outside_inference_mode():
    modes = []

    def forward_fn(model, batch):
        modes.append((model.training, torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        model(batch)

    with torch.inference_mode():
        _, grams = grams_of(nn.Sequential(nn.Linear(3, 3)), [torch.randn(8, 3)], forward_fn=forward_fn)
    assert set(modes) == {(False, False, False)}
    assert not grams[0].halves.is_inference()


def test_a_model_that_writes_to_its_inputs_gets_the_same_inputs_again():
    class WritesToInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x.mul_(2))

    model, banks = WritesToInputs(), []
    probe, forward_settings = StreamProbe([torch.randn(8, 3)], 0), ForwardSettings(CPU)
    plan = dry_run(model, probe, None, forward_settings)
    for _ in range(2):
        banks.append(GramBank(plan.names, "model"))
        show_probe_set(model, probe, plan, forward_settings, banks[-1].add)
    first, second = (list(bank) for bank in banks)
    assert [batch.fingerprint for batch in first] == [batch.fingerprint for batch in second]
    assert torch.equal(first[0].grams.offsets, second[0].grams.offsets)


def test_the_same_noise_at_each_pass():
    model, batches = Tokens(), [torch.randn(8, 4, 6)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = (grams_of(model, batches)[1] for _ in range(2))
    assert torch.equal(first[0].halves, second[0].halves)


def test_compiled_children_run_eagerly_and_fire():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(8, 4)
    expected = grams_of(model, [x])
    compiled = nn.Sequential()
    compiled.net = torch.compile(model, backend="eager")
    compiled(x)  # Hooks registered after the first compiled call fire only with the right stance.
    names, grams = grams_of(compiled, [x])
    assert names == ("net.0", "net.2")
    assert torch.equal(grams[0].halves, expected[1][0].halves)
