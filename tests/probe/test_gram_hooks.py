"""Each output is reduced to its Gram matrix inside the hook."""

import warnings
import weakref

import naive
import pytest
import torch
from example_models import CPU, grams_of, hsic
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.repeated_calls import RepeatedCalls
from lightning_cka.probe.show_probe_set import show_probe_set
from lightning_cka.probe.stream_probe import StreamProbe
from torch import nn


def test_gram_matrices_are_computed_from_the_outputs():
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(inplace=True), nn.Linear(9, 3)).double()
    batches = [torch.randn(n, 6, dtype=torch.float64) for n in (8, 3, 12)]
    names, grams = grams_of(model, batches)
    assert names == ("0", "2")
    assert list(grams) == [0, 2]  # A batch of three samples is skipped.
    with torch.no_grad():
        for index, packed in grams.items():
            n = len(batches[index])
            # The in-place ReLU comes after the hook has read its input.
            outputs = [model[0](batches[index]), model(batches[index])]
            expected = [
                [n * (n - 3) * naive.unbiased_hsic(naive.gram(a), naive.gram(b)) for b in outputs] for a in outputs
            ]
            assert torch.allclose(hsic(packed), torch.tensor(expected), rtol=1e-9)


def test_sequence_first_layers_give_the_same_as_batch_first():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Identity(), nn.Identity()

        def forward(self, x):
            self.first(x)
            self.second(x.transpose(0, 1))

    _, grams = grams_of(Both(), [torch.randn(9, 9, 4)], ["first", "second"])
    assert torch.allclose(hsic(grams[0]) / hsic(grams[0])[0, 0], torch.ones(2, 2, dtype=torch.float64), atol=1e-6)


def test_activations_of_two_layers_are_never_held_together():
    """Each activation is freed before the next layer's hook fires."""
    alive, most = weakref.WeakSet(), 0

    class Watched(nn.Linear):
        def forward(self, x):
            nonlocal most
            out = super().forward(x.detach().clone())
            alive.add(out)
            most = max(most, len(alive))
            return out

    grams_of(nn.Sequential(*[Watched(6, 6) for _ in range(6)]), [torch.randn(8, 6) for _ in range(3)])
    assert most <= 2  # The model itself holds a layer's input and its output.


def test_a_layer_that_cannot_be_read_on_some_batch_is_nan_with_a_warning():
    class SometimesWrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            y = self.a(x)
            return self.b(y) if len(x) < 9 else self.b(y[:2])

    batches = [torch.randn(8, 3), torch.randn(9, 3)]
    with pytest.warns(UserWarning) as caught:
        _, grams = grams_of(SometimesWrong(), batches)
    assert "layer 'b' gave Tensor(2, 3) float32 for a batch of 9 samples: its CKA is nan" in str(caught[0].message)
    assert hsic(grams[1])[:, 1].isnan().all()
    assert not hsic(grams[1])[0, 0].isnan()


@pytest.mark.parametrize("as_tuple", [False, True])
def test_a_layer_that_gets_some_of_the_samples_is_warned_of_once(as_tuple):
    class Expert(nn.Module):
        """Gets another number of samples in each batch, as the expert that a router chooses."""

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.register_forward_hook(lambda module, inputs, output: (output, 1) if as_tuple else None)

        def forward(self, x):
            self.b(x if len(x) <= 8 else x[: len(x) - 7])
            return self.a(x)

    batches = [torch.randn(n, 3) for n in (8, 9, 10, 11, 12)]
    with pytest.warns(UserWarning, match="its CKA is nan") as caught:
        _, grams = grams_of(Expert(), batches)
    assert len([each for each in caught if "its CKA is nan" in str(each.message)]) == 1
    assert all(hsic(grams[i])[:, 0].isnan().all() for i in range(1, 5))


def test_a_second_call_does_not_replace_a_first_that_cannot_be_read():
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


def test_callable_feature_fn_reads_the_raw_output():
    class Pair(nn.Module):
        def forward(self, x):
            return x, {"second": x[:, :1]}

    model = nn.Sequential(Pair())
    _, grams = grams_of(model, [torch.randn(8, 3)], "0", feature_fn=lambda output: output[1]["second"])
    assert not hsic(grams[0]).isnan().any()


class Recurrent(nn.Module):
    """Runs one layer several times, and writes to its outputs."""

    def __init__(self, times=3):
        super().__init__()
        self.cell, self.head, self.times = nn.Linear(3, 3), nn.Linear(3, 2), times

    def outputs(self, x):
        found = []
        for _ in range(self.times):
            found.append(self.cell(x))
            x = found[-1].clone().tanh()
        return found

    def forward(self, x):
        for _ in range(self.times):
            x = self.cell(x).tanh_()
        return self.head(x)


@pytest.mark.parametrize(
    ("call", "expected"), [("last", lambda outputs: outputs[-1]), ("mean", lambda outputs: sum(outputs) / len(outputs))]
)
def test_the_last_call_and_the_mean_over_calls(call, expected):
    model, batches = Recurrent(), [torch.randn(8, 3), torch.randn(9, 3)]
    names, grams = grams_of(model, batches, call=call)
    assert names == ("cell", "head")
    read = Recurrent()
    read.load_state_dict(model.state_dict())
    for index, batch in enumerate(batches):
        n = len(batch)
        with torch.no_grad():
            gram = naive.gram(expected(read.outputs(batch)))
        value = n * (n - 3) * naive.unbiased_hsic(gram, gram)
        assert torch.allclose(hsic(grams[index])[0, 0], torch.as_tensor(value).double(), rtol=1e-5)


def test_the_observer_sees_repeated_layers_once_per_batch():
    model, probe = Recurrent(), StreamProbe([torch.randn(8, 3)], 0)
    for call in ("first", "last", "mean"):
        forward_settings, rows = ForwardSettings(CPU, call=call), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plan = dry_run(model, probe, None, forward_settings)
        show_probe_set(
            model, probe, plan, forward_settings, lambda batch: None, observe=lambda row, _, rows=rows: rows.append(row)
        )
        assert sorted(rows) == [0, 1]


def test_half_precision_does_not_overflow_in_the_mean_over_calls():
    calls = RepeatedCalls("mean")
    for _ in range(4):
        assert calls.add("a", torch.full((2, 3), 3e4, dtype=torch.float16)) is None
    assert torch.equal(calls.result("a"), torch.full((2, 3), float(torch.tensor(3e4).half())))
    assert calls.result("a") is None


def test_a_mean_of_unequal_shapes_on_a_later_batch_is_nan_with_a_warning():
    class Grows(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            x = self.b(x)
            return self.a(x[:, None] if len(x) == 9 else x), self.a(x)

    batches = [torch.randn(8, 3), torch.randn(9, 3)]
    with pytest.warns(UserWarning, match=r"layer 'a' gave features of shapes .* in two calls.*its CKA is nan"):
        names, grams = grams_of(Grows(), batches, call="mean")
    assert names == ("b", "a")
    assert hsic(grams[1])[1].isnan().all()
    assert not hsic(grams[1])[0, 0].isnan()


def test_a_layer_that_is_repeated_on_later_batches_only_is_nan_with_one_warning():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            x = self.b(self.a(x))
            return self.a(x) if len(x) == 9 else x

    batches = [torch.randn(8, 3), torch.randn(9, 3), torch.randn(9, 3)]
    with pytest.warns(UserWarning, match="layer 'a' ran several times, though once in the first batch") as caught:
        _, grams = grams_of(Sometimes(), batches, call="last")
    assert len(caught) == 1
    assert hsic(grams[2])[0].isnan().all()
    assert not hsic(grams[0]).isnan().any()
    assert not hsic(grams[2])[1, 1].isnan()


def removed(net):
    del net[1]


def replaced(net):
    net[1] = nn.Flatten(0)


@pytest.mark.parametrize(("change", "why"), [(removed, "is no longer in the model"), (replaced, r"gave Tensor\(24,\)")])
def test_layers_that_change_during_training_are_nan_with_one_warning(change, why):
    model, probe = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), StreamProbe([torch.randn(8, 3)] * 3, 0)
    forward_settings, original = ForwardSettings(CPU), model[1]
    plan = dry_run(model, probe, None, forward_settings)

    def shown():
        bank = GramBank(plan.names, "model")
        show_probe_set(model, probe, plan, forward_settings, bank.add)
        return hsic(next(iter(bank)).grams)

    before = shown()
    change(model)
    with pytest.warns(UserWarning, match=f"layer '1' {why}.*: its CKA is nan") as caught:
        values = [shown() for _ in range(3)]
    assert len(caught) == 1
    for value in values:
        assert value[1].isnan().all()
        assert value[0, 0] == before[0, 0]
    model.add_module("1", original)
    assert torch.equal(shown(), before)
