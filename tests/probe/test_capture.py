"""ForwardSettings batches to models: what is read, and that nothing is left changed."""

import warnings
import weakref

import naive
import pytest
import torch
from lightning_cka.hsic.products import half_vectors, inner_products
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.show_probe_set import show_probe_set
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.forward import ForwardSettings, default_forward
from lightning_cka.probe.layers import check_layers
from lightning_cka.probe.stream_probe import StreamProbe
from lightning_cka.runtime.weights import detached_copy
from torch import nn
from torchmetrics import MeanMetric

CPU = torch.device("cpu")


def plan_of(model, batches, layers=None, **kwargs):
    return dry_run(model, StreamProbe(batches, 0), check_layers(layers), ForwardSettings(CPU, **kwargs))


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
    """A sequence-first layer, a tuple, a repeated layer, one that never runs, and noise in forward."""

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


def test_default_layers_in_execution_order_with_their_batch_dimension(caplog):
    with pytest.warns(UserWarning, match="compared at their first call: again"):
        plan = plan_of(Tokens(), [torch.randn(4, 4, 6)])  # As many tokens as samples.
    assert plan.batch_dims == {"embed": 0, "lstm": 1, "again": 1}
    never = (
        "layer 'attention.out_proj' (NonDynamicallyQuantizableLinear), layer 'never' (Linear) did not run in forward"
    )
    assert never in caplog.text
    assert (
        "the output of layer 'position' (Tensor(4, 8) float32) has no dimension with one entry per sample"
        in caplog.text
    )


def test_gram_matrices_are_those_of_the_outputs():
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(inplace=True), nn.Linear(9, 3)).double()
    batches = [torch.randn(n, 6, dtype=torch.float64) for n in (8, 3, 12)]
    names, grams = grams_of(model, batches)
    assert names == ("0", "2")
    assert list(grams) == [0, 2]  # Three samples are too few.
    with torch.no_grad():
        for index, packed in grams.items():
            n = len(batches[index])
            # The in-place ReLU comes after the hook has read its input.
            outputs = [model[0](batches[index]), model(batches[index])]
            expected = [
                [n * (n - 3) * naive.unbiased_hsic(naive.gram(a), naive.gram(b)) for b in outputs] for a in outputs
            ]
            assert torch.allclose(hsic(packed), torch.tensor(expected), rtol=1e-9)


def test_sequence_first_layers_are_the_same_as_batch_first():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Identity(), nn.Identity()

        def forward(self, x):
            self.first(x)
            self.second(x.transpose(0, 1))

    _, grams = grams_of(Both(), [torch.randn(9, 9, 4)], ["first", "second"])
    assert torch.allclose(hsic(grams[0]) / hsic(grams[0])[0, 0], torch.ones(2, 2, dtype=torch.float64), atol=1e-6)


def test_never_the_activations_of_two_layers():
    """Each activation is gone by the time that the next layer's hook fires."""
    alive, most = weakref.WeakSet(), 0

    class Watched(nn.Linear):
        def forward(self, x):
            nonlocal most
            out = super().forward(x.detach().clone())
            alive.add(out)
            most = max(most, len(alive))
            return out

    grams_of(nn.Sequential(*[Watched(6, 6) for _ in range(6)]), [torch.randn(8, 6) for _ in range(3)])
    assert most <= 2  # A layer's input and its output: the model's own.


def test_a_layer_that_cannot_be_read_on_some_batch_is_nan_and_said():
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            y = self.a(x)
            return self.b(y) if len(x) < 9 else self.b(y[:2])

    batches = [torch.randn(8, 3), torch.randn(9, 3)]
    with pytest.warns(UserWarning) as caught:
        _, grams = grams_of(Moody(), batches)
    assert "layer 'b' gave Tensor(2, 3) float32 for a batch of 9 samples: its CKA is nan" in str(caught[0].message)
    assert hsic(grams[1])[:, 1].isnan().all()
    assert not hsic(grams[1])[0, 0].isnan()


def test_a_first_call_that_cannot_be_read_is_not_replaced_by_a_second():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x):
            return self.a(x[:2] if len(x) == 9 else x), self.a(x)

    with pytest.warns(UserWarning, match="first call|its CKA is nan") as caught:
        _, grams = grams_of(Twice(), [torch.randn(8, 3), torch.randn(9, 3)])
    assert len([w for w in caught if "its CKA is nan" in str(w.message)]) == 1
    assert hsic(grams[1]).isnan().all()


class Mutable(nn.Module):
    """All that a careless pass would change."""

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
def test_everything_is_left_as_it_was_found(fail):
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


def test_a_metric_of_the_training_loss_still_has_its_graph():
    model, probe = Mutable(), StreamProbe([torch.randn(8, 4) + 3], 0)
    weight = torch.ones((), requires_grad=True)
    loss = model.seen(2 * weight)
    total = model.seen.mean_value
    show_probe_set(model, probe, dry_run(model, probe, None, ForwardSettings(CPU)), ForwardSettings(CPU), lambda *args: None)
    assert detached_copy(model).seen.compute() == 2
    assert model.seen.mean_value is total
    loss.backward()
    assert (weight.grad, model.seen.compute(), model.seen.update_count) == (2, 2, 1)


def test_the_model_is_in_evaluation_mode_without_gradients_and_outside_inference_mode():
    seen = []

    def forward_fn(model, batch):
        seen.append((model.training, torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        model(batch)

    with torch.inference_mode():
        _, grams = grams_of(nn.Sequential(nn.Linear(3, 3)), [torch.randn(8, 3)], forward_fn=forward_fn)
    assert set(seen) == {(False, False, False)}
    assert not grams[0].halves.is_inference()


def test_a_model_that_writes_to_its_inputs_sees_the_same_ones_again():
    class Greedy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x.mul_(2))

    model, banks = Greedy(), []
    probe, forward_settings = StreamProbe([torch.randn(8, 3)], 0), ForwardSettings(CPU)
    plan = dry_run(model, probe, None, forward_settings)
    for _ in range(2):
        banks.append(GramBank(plan.names, "greedy"))
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


class Takes(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.layer, self.fn = nn.Linear(3, 3), fn

    def forward(self, x, mask=None):
        return self.fn(self.layer(x), mask)


class KeywordsOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, **inputs):
        return self.layer(inputs["x"])


def test_default_forward_takes_the_usual_batches():
    x, label = torch.randn(5, 3), torch.zeros(5)
    model = Takes(lambda y, mask: (y, mask))
    for batch in (x, (x, label), [x, label]):
        assert default_forward(model, batch)[1] is None
    for batch in ({"x": x, "mask": label, "id": label}, ({"x": x, "mask": label}, label)):
        assert default_forward(model, batch)[1] is label
    assert default_forward(KeywordsOnly(), {"x": x, "y": label}).shape == (5, 3)
    whole = Takes(lambda y, mask: y)
    whole.forward = lambda batch: batch["image"]
    assert default_forward(whole, {"image": x}) is x


class Odd(nn.Module):
    """Layers that cannot be compared."""

    def __init__(self):
        super().__init__()
        self.good = nn.Linear(3, 3)
        self.ids = Lambda(lambda x: x.argmax(1))
        self.folded = Lambda(lambda x: x.repeat(4, 1))
        self.never = nn.Linear(3, 3)

    def forward(self, x):
        x = self.good(x)
        self.ids(x), self.folded(x)
        return x


class Lambda(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("never", r"these layers on a batch of 8 samples: layer 'never' \(Linear\) did not run in forward"),
        ("ids", r"output of layer 'ids' \(Tensor\(8,\) int64\) has no floating-point tensor.*feature_fn="),
        ("folded", r"output of layer 'folded' \(Tensor\(32, 3\) float32\) has no dimension with one entry per sample"),
        ("god", "matches no module; closest: 'good'"),
    ],
)
def test_layers_that_cannot_be_compared_are_refused_by_name(layers, message):
    with pytest.raises(ValueError, match=message):
        plan_of(Odd(), [torch.randn(8, 3)], layers)


class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, *batches: torch.Tensor, **options: str):
        return self.layer(*batches)


def test_other_refusals():
    with pytest.raises(
        ValueError, match=r"Odd could not be shown a probe batch: pass forward_fn=.*takes \(x\), the batch is a dict of"
    ):
        plan_of(Odd(), [{"image": torch.randn(8, 3)}])
    with pytest.raises(ValueError, match=r"Its forward takes \(\*batches, \*\*options\)"):
        plan_of(Wrapper(), [torch.randn(8, 3)])
    with pytest.raises(ValueError, match="need at least 4 samples, but the first has 3"):
        plan_of(Odd(), [torch.randn(3, 3)])
    with pytest.raises(ValueError, match="feature_fn failed on the output of layer 'good'"):
        plan_of(Odd(), [torch.randn(8, 3)], feature_fn=lambda output: output["missing"])
    with pytest.raises(ValueError, match="no layer of Sequential can be compared"):
        plan_of(nn.Sequential(nn.Linear(3, 3)), [torch.randn(8, 3)], forward_fn=lambda model, batch: None)
    with pytest.raises(ValueError, match=r"'good' \(feature_fn gave Tensor\(3,\) float32\) has no dimension"):
        plan_of(Odd(), [torch.randn(8, 3)], "good", feature_fn=lambda output: output.mean(0))


def test_a_model_of_fixed_batch_size_is_taken_to_be_batch_first():
    model = Takes(lambda y, mask: y.view(8, 3))
    with pytest.warns(UserWarning, match="first dimension of each output, since one sample fewer failed"):
        assert plan_of(model, [torch.randn(8, 3)]).batch_dims == {"layer": 0}


def test_more_than_64_layers_are_thinned_out_and_said(caplog):
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(100)])
    names = plan_of(model, [torch.randn(4, 2)]).names
    assert len(names) == 64
    assert "CKA compares 64 of 100 layers, evenly spaced; choose others by name pattern or module class" in caplog.text


def test_callable_feature_fn_reads_the_raw_output():
    class Pair(nn.Module):
        def forward(self, x):
            return x, {"second": x[:, :1]}

    model = nn.Sequential(Pair())
    _, grams = grams_of(model, [torch.randn(8, 3)], "0", feature_fn=lambda output: output[1]["second"])
    assert not hsic(grams[0]).isnan().any()
