"""Which layers are found, and which are skipped or raise an error."""

import pytest
import torch
from example_models import Takes, Tokens, plan_of
from torch import nn


def test_default_layers_in_execution_order_with_their_batch_dimension(caplog):
    with pytest.warns(UserWarning, match="compared at their first call: again"):
        plan = plan_of(Tokens(), [torch.randn(4, 4, 6)])  # There are as many tokens as samples.
    assert plan.batch_dims == {"embed": 0, "attention": 1, "lstm": 1, "again": 1}
    assert plan.repeated == {"again"}
    assert "CKA leaves out of the default layers: layer 'never' (Linear) did not run in forward; the" in caplog.text
    assert (
        "the output of layer 'position' (Tensor(4, 8) float32) has no dimension with one entry per sample"
        in caplog.text
    )


class Odd(nn.Module):
    """Has layers that cannot be compared."""

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
def test_layers_that_cannot_be_compared_raise_if_chosen_by_name(layers, message):
    with pytest.raises(ValueError, match=message):
        plan_of(Odd(), [torch.randn(8, 3)], layers)


class Holds(nn.Module):
    """Holds layers in containers that it only iterates over, and one layer that it does not use."""

    def __init__(self):
        super().__init__()
        self.listed = nn.ModuleList([nn.Linear(3, 3)])
        self.named = nn.ModuleDict({"a": nn.Linear(3, 3)})
        self.iterated = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
        self.idle = nn.ModuleList([nn.Linear(3, 3)])

    def forward(self, x):
        for layer in (*self.listed, self.named["a"], *self.iterated):
            x = layer(x)
        return x


@pytest.mark.parametrize(("layers", "choice"), [(None, "the default layers"), ("**", "layers=")])
def test_containers_that_are_iterated_over_are_not_said_to_be_left_out(layers, choice, caplog):
    plan = plan_of(Holds(), [torch.randn(8, 3)], layers)
    assert [name for name in plan.names if name != "iterated.1"] == ["listed.0", "named.a", "iterated.0", "iterated.2"]
    assert [line.message for line in caplog.records] == [
        f"CKA leaves out of {choice}: layer 'idle.0' (Linear) did not run in forward"
    ]


def test_a_container_that_is_chosen_by_name_says_what_to_choose():
    for name, kind in (("listed", "ModuleList"), ("named", "ModuleDict"), ("iterated", "Sequential")):
        message = rf"layer '{name}' \({kind}\) did not run in forward: choose the layers inside it, with a pattern such"
        with pytest.raises(ValueError, match=message):
            plan_of(Holds(), [torch.randn(8, 3)], name)


class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, *batches: torch.Tensor, **options: str):
        return self.layer(*batches)


def test_other_errors():
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


def test_a_model_of_fixed_batch_size_is_assumed_to_be_batch_first():
    model = Takes(lambda y, mask: y.view(8, 3))
    with pytest.warns(UserWarning, match="first dimension of each output, since one sample fewer failed"):
        assert plan_of(model, [torch.randn(8, 3)]).batch_dims == {"layer": 0}


def test_of_more_than_64_layers_64_are_chosen(caplog):
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(100)])
    names = plan_of(model, [torch.randn(4, 2)]).names
    assert len(names) == 64
    assert "CKA compares 64 of 100 layers, evenly spaced; choose others by name pattern or module class" in caplog.text
