"""Rows must be the samples, in their order."""

import warnings

import pytest
import torch
from example_models import plan_of
from torch import nn

N = 16


class Reorders(nn.Module):
    """Runs a layer on its samples in another order, and restores the order."""

    def __init__(self, order, width=4):
        super().__init__()
        self.inp, self.inner, self.out = nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 2)
        self.order = order

    def forward(self, x):
        h, order = self.inp(x), self.order(x)
        return self.out(h + self.inner(h[order])[order.argsort()])


def by_length(x):
    return x[:, 0].argsort()


ORDERS = {
    "sorted": by_length,
    "sorted down": lambda x: x[:, 0].argsort(descending=True),
    "reversed": lambda x: torch.arange(len(x)).flip(0),
    "rolled": lambda x: torch.arange(len(x)).roll(1),
    "pairs": lambda x: torch.cat([torch.arange(0, len(x), 2), torch.arange(1, len(x), 2)]),
    "shuffled": lambda x: torch.randperm(len(x)),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("n", [8, 9, 32])
def test_rows_in_another_order_are_left_out_or_raise(order, n, caplog):
    model, batches = Reorders(order), [torch.randn(n, 4)]
    assert list(plan_of(model, batches).batch_dims) == ["inp", "out"]
    assert "has its rows in another order than the samples" in caplog.text
    with pytest.raises(
        ValueError, match=r"layer 'inner' .* has its rows in another order .*feature_fn= or forward_fn="
    ):
        plan_of(model, batches, "inner")


def test_a_feature_fn_that_restores_the_order_is_accepted():
    x = torch.randn(N, 4)
    model = Reorders(by_length)

    def restore(output):
        return output[model.last.argsort()] if output.shape[-1] == 4 else output

    model.order = lambda batch: setattr(model, "last", by_length(batch)) or model.last
    assert "inner" in plan_of(model, [x], "inner", feature_fn=restore).batch_dims


def test_sequences_first_are_checked_along_their_batch_dimension():
    class SequenceFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.sorted, self.kept = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = x.transpose(0, 1)
            return self.sorted(x[:, by_length(x[0])]), self.kept(x)

    assert plan_of(SequenceFirst(), [torch.randn(N, 5, 4)]).batch_dims == {"kept": 1}


class Noise(nn.Module):
    """Rows that depend on the other samples, or on chance, are accepted as before."""

    def __init__(self, fn):
        super().__init__()
        self.layer, self.fn = nn.Linear(4, 4), fn

    def forward(self, x):
        return self.layer(self.fn(x))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x - x.mean(0),
        lambda x: x + torch.randn_like(x),
        lambda x: x * 0,
        lambda x: x[:1].expand(len(x), -1),
        lambda x: x * torch.tensor([1e8, 1, 1, 1]),
        lambda x: x.bfloat16().float(),
        lambda x: x.masked_fill(x > 1, torch.nan),
    ],
)
def test_rows_without_a_known_order_are_accepted(fn):
    assert plan_of(Noise(fn), [torch.randn(N, 4)]).batch_dims == {"layer": 0}


def test_a_batch_with_equal_samples_is_accepted():
    assert plan_of(Noise(lambda x: x), [torch.randn(2, 4).repeat(8, 1)]).batch_dims == {"layer": 0}


def test_wide_outputs_and_images_are_told_apart():
    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.sorted = nn.Conv2d(1, 8, 3), nn.Conv2d(1, 8, 3)

        def forward(self, x):
            return self.conv(x), self.sorted(x[x.flatten(1).mean(1).argsort()])

    assert plan_of(Images(), [torch.randn(N, 1, 40, 40)]).batch_dims == {"conv": 0}


def test_models_that_write_to_their_inputs_are_accepted():
    assert plan_of(Noise(lambda x: x.mul_(2)), [torch.randn(N, 4)]).batch_dims == {"layer": 0}


def test_packed_sequences_keep_their_order():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(4, 3, batch_first=True)

        def forward(self, x):
            lengths = (x[..., 0] > -1).sum(1).clamp(min=1)
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return self.rnn(packed)[0]

    assert plan_of(Packed(), [torch.randn(N, 5, 4)]).batch_dims == {"rnn": 0}


class Views(nn.Module):
    """Shows several views of each sample to one layer."""

    def __init__(self, stack):
        super().__init__()
        self.layer, self.head, self.stack = nn.Linear(4, 3), nn.Linear(4, 2), stack

    def forward(self, x):
        return self.layer(self.stack(x)), self.head(x)


@pytest.mark.parametrize(
    ("stack", "unfold"),
    [
        (lambda x: torch.cat([x, -x]), "output.unflatten(0, (2, -1)).transpose(0, 1).flatten(1)"),
        (lambda x: x.repeat(3, 1) * torch.arange(1, 4).repeat_interleave(len(x))[:, None],
         "output.unflatten(0, (3, -1)).transpose(0, 1).flatten(1)"),
        (lambda x: torch.stack([x, -x], 1).flatten(0, 1), "output.unflatten(0, (-1, 2)).flatten(1)"),
        (lambda x: torch.stack([x, x.sin(), x.cos()], 1).flatten(0, 1), "output.unflatten(0, (-1, 3)).flatten(1)"),
    ],
)  # fmt: skip
def test_the_unfolding_that_fits_the_values_is_recommended(stack, unfold):
    model, x = Views(stack), torch.randn(N, 4)
    with pytest.raises(ValueError, match="Compare such layers alone") as error:
        plan_of(model, [x], "layer")
    assert f"feature_fn=lambda output: {unfold}." in str(error.value) + "."
    feature_fn = eval(f"lambda output: {unfold}")  # The message has code for users to copy.
    assert plan_of(model, [x], "layer", feature_fn=feature_fn).batch_dims == {"layer": 0}


@pytest.mark.parametrize(
    "stack", [lambda x: torch.cat([x, -x])[torch.randperm(2 * len(x))], lambda x: torch.ones(2 * len(x), 4)]
)
def test_no_unfolding_is_recommended_if_none_fits(stack):
    with pytest.raises(ValueError, match="in an order that cannot be told from the values") as error:
        plan_of(Views(stack), [torch.randn(N, 4)], "layer")
    assert "unflatten" not in str(error.value)


class Steps(nn.Module):
    """Runs one layer several times."""

    def __init__(self, times=3, grows=False):
        super().__init__()
        self.cell, self.times, self.grows = nn.Linear(4, 4), times, grows

    def forward(self, x):
        for i in range(self.times):
            x = self.cell(x[:, None].expand(-1, i + 1, -1) if self.grows else x).reshape(len(x), -1)[:, :4]
        return x


def test_repeated_layers_and_their_calls():
    with pytest.warns(UserWarning, match="first call: cell. call='last' takes their last call, call='mean' the mean"):
        assert plan_of(Steps(), [torch.randn(N, 4)]).repeated == {"cell"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in ("last", "mean"):
            assert plan_of(Steps(), [torch.randn(N, 4)], call=call).repeated == {"cell"}
        assert plan_of(Steps(grows=True), [torch.randn(N, 4)], call="last").repeated == {"cell"}
    with pytest.raises(ValueError, match=r"'cell' \(3 calls\) gave outputs of unequal shapes.*call='mean' cannot"):
        plan_of(Steps(grows=True), [torch.randn(N, 4)], "cell", call="mean")
