"""Names of submodules of wrapped models."""

from collections import OrderedDict

import pytest
import torch
from conftest import Forwards
from lightning_cka.runtime.module_names import (
    is_transparent,
    match_keys,
    named_layers,
    unwrapped,
    unwrapped_names,
    without_compiled,
)
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper


class Residual(nn.Module):
    """A layer with one child, which does more than its child."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Scaled(Forwards):
    """Passes attributes on, but has a parameter of its own."""

    def __init__(self, inner):
        super().__init__(inner)
        self.scale = nn.Parameter(torch.ones(()))


WRAPPERS = {
    "compiled": torch.compile,
    "checkpointed": checkpoint_wrapper,
    "own": Forwards,
    "twice": lambda inner: Forwards(Forwards(inner)),
    "mixed": lambda inner: torch.compile(checkpoint_wrapper(Forwards(inner))),
}


def test_compiled_wrappers_leave_no_trace_in_names():
    encoder = OrderedDict(conv=nn.Conv2d(1, 2, 3), act=nn.ReLU(), norm=nn.BatchNorm2d(2))
    net = nn.Sequential(OrderedDict(encoder=nn.Sequential(encoder), head=nn.Linear(2, 3)))
    net.encoder = torch.compile(net.encoder)
    names = named_layers(net)
    assert list(names)[:4] == ["encoder", "encoder.conv", "encoder.act", "encoder.norm"]
    assert isinstance(names["encoder"], nn.Sequential)


def test_names_without_compiled_segments():
    assert without_compiled("_orig_mod.a._orig_mod.weight") == "a.weight"
    assert without_compiled("a.my_orig_mod.weight") == "a.my_orig_mod.weight"


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrappers_are_not_in_names(wrap):
    plain = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    names = list(named_layers(plain))
    keys = list(plain.state_dict())
    wrapped = nn.Sequential(wrap(plain[0]), wrap(plain[1]))
    assert is_transparent(wrapped[1])
    assert unwrapped(wrapped[0]) is plain[0]
    assert named_layers(wrapped) == dict(zip(names, [plain[0], plain[1], plain[1][0], plain[1][1]], strict=True))
    assert [unwrapped_names(wrapped)(key) for key in wrapped.state_dict()] == keys
    assert list(named_layers(wrap(plain))) == names


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(3, 3)),
        nn.ModuleDict({"a": nn.Linear(3, 3)}),
        Residual(nn.Linear(3, 3)),
        Scaled(nn.Linear(3, 3)),
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 3, bias=False)),
        nn.Linear(3, 3),
    ],
)
def test_other_modules_with_one_child_keep_their_names(module):
    assert not is_transparent(module)
    assert unwrapped(module) is module
    assert "0" in named_layers(nn.Sequential(module))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["_orig_mod.a.weight", "_orig_mod.b.weight"], ["a.weight", "b.weight"]),
        (["a.any.weight", "b.weight"], ["a.weight", "b.weight"]),
        (["x.a.y.weight", "x.b.z.weight"], ["a.weight", "b.weight"]),
        (["x.a.weight", "y.b.weight"], ["x.a.weight", "y.b.weight"]),  # Two children are no wrapper.
        (["a.weight", "c.weight"], ["a.weight", "c.weight"]),
    ],
)
def test_keys_of_wrapped_models(keys, expected):
    assert list(match_keys(keys, ["a.weight", "b.weight"]).values()) == expected
