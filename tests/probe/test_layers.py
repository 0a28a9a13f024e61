"""Layers are chosen by name pattern or module class."""

from collections import OrderedDict

import pytest
import torch
from lightning_cka.probe import layers
from lightning_cka.runtime.module_names import named_layers
from torch import nn


def model():
    return nn.Sequential(
        OrderedDict(
            encoder=nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), act=nn.ReLU(), norm=nn.BatchNorm2d(2))),
            flat=nn.Flatten(),
            head=nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)),
        )
    )


def test_default_layers_are_chosen_among_modules_with_parameters():
    assert list(layers.match_layers(model(), None)) == ["encoder", "encoder.conv", "encoder.norm", "head"]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("encoder.*", {"encoder.conv": 0, "encoder.act": 0, "encoder.norm": 0}),
        ("head", {"head": 0}),
        (nn.Conv2d, {"encoder.conv": 0}),
        (["flat", nn.Conv2d, "**conv"], {"flat": 0, "encoder.conv": 1}),
        ("*", {"encoder": 0, "flat": 0, "head": 0}),
        ("Conv2d", {"encoder.conv": 0}),
        ("torch.nn.Linear", {"head": 0}),  # Its class is one that weight_norm derives from it.
        (["encoder.*", "!ReLU", "flat"], {"encoder.conv": 0, "encoder.norm": 0, "flat": 2}),
        (["!encoder.n*", "encoder.*"], {"encoder.conv": 1, "encoder.act": 1}),
    ],
)
def test_patterns_and_classes(selector, expected):
    assert layers.match_layers(model(), layers.check_layers(selector)) == expected


def test_an_exact_name_is_not_a_pattern():
    net = nn.ModuleDict({"!a0": nn.Linear(1, 1), "Linear": nn.ReLU()})
    assert layers.match_layers(net, ("!a0",)) == {"!a0": 0}
    assert layers.match_layers(net, ("Linear",)) == {"Linear": 0}
    net = nn.ModuleDict({"a[0]": nn.Linear(1, 1), "a0": nn.Linear(1, 1)})
    assert layers.match_layers(net, ("a[0]",)) == {"a[0]": 0}
    assert layers.match_layers(net, ("a[0-9]",)) == {"a0": 0}


def test_names_do_not_contain_compiled_wrappers():
    net = model()
    net.encoder = torch.compile(net.encoder)
    names = named_layers(net)
    assert list(names)[:4] == ["encoder", "encoder.conv", "encoder.act", "encoder.norm"]
    assert isinstance(names["encoder"], nn.Sequential)


@pytest.mark.parametrize(
    ("selector", "error", "message"),
    [
        ("encoder.blok*", ValueError, "layer pattern 'encoder.blok\\*' matches no module; closest: 'encoder\\."),
        ("Linaer", ValueError, "matches no module; closest: 'Linear|closest: .*'ParametrizedLinear"),
        ("*.*.0", ValueError, "'\\*.\\*.0' matches no module: .*write \\*\\* to match across dots: '\\*\\*.\\*\\*.0'"),
        (["head", "!haed"], ValueError, "'haed' matches no module"),
        (["head", "!head"], ValueError, "takes away all 1 layers that it chooses"),
        (nn.LSTM, ValueError, "no module is a LSTM; the model has BatchNorm2d, Conv2d"),
        ([], ValueError, "layers is empty"),
        ([3], TypeError, "name patterns or module classes, but has 3"),
        (int, TypeError, "name patterns or module classes"),
    ],
)
def test_bad_selection(selector, error, message):
    with pytest.raises(error, match=message):
        layers.match_layers(model(), layers.check_layers(selector))


def test_no_layer_with_parameters():
    with pytest.raises(ValueError, match="Sequential has no layer with parameters"):
        layers.match_layers(nn.Sequential(nn.ReLU()), None)


@pytest.mark.parametrize(
    "selection",
    [
        {"flat": 1, nn.Conv2d: 2}.keys(),
        frozenset(["flat", nn.Conv2d]),
        (name for name in ("flat", nn.Conv2d)),
    ],
)
def test_any_container_is_a_list(selection):
    assert set(layers.check_layers(selection)) == {"flat", nn.Conv2d}


def test_names_with_the_segments_of_wrappers_still_match():
    net = model()
    net.encoder = torch.compile(net.encoder)
    assert layers.match_layers(net, ("encoder._orig_mod.c*",)) == {"encoder.conv": 0}
    assert layers.match_layers(net, ("encoder._orig_mod",)) == {"encoder": 0}
