"""Names of submodules of compiled models."""

from collections import OrderedDict

import torch
from lightning_cka.runtime.module_names import named_layers, without_compiled
from torch import nn


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
