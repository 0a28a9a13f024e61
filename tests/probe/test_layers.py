"""Choosing layers, and reading outputs."""

from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from lightning_cka.probe import features, layers
from torch import nn


def model():
    return nn.Sequential(
        OrderedDict(
            encoder=nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), act=nn.ReLU(), norm=nn.BatchNorm2d(2))),
            flat=nn.Flatten(),
            head=nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)),
        )
    )


def test_default_layers_are_leaves_with_parameters():
    assert list(layers.match_layers(model(), None)) == ["encoder.conv", "encoder.norm", "head"]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("encoder.*", {"encoder.conv": 0, "encoder.act": 0, "encoder.norm": 0}),
        ("head", {"head": 0}),
        (nn.Conv2d, {"encoder.conv": 0}),
        (["flat", nn.Conv2d, "*conv"], {"flat": 0, "encoder.conv": 1}),
    ],
)
def test_patterns_and_classes(selector, expected):
    assert layers.match_layers(model(), layers.check_layers(selector)) == expected


def test_an_exact_name_is_no_pattern():
    net = nn.ModuleDict({"a[0]": nn.Linear(1, 1), "a0": nn.Linear(1, 1)})
    assert layers.match_layers(net, ("a[0]",)) == {"a[0]": 0}
    assert layers.match_layers(net, ("a[0-9]",)) == {"a0": 0}


@pytest.mark.parametrize(
    ("selector", "error", "message"),
    [
        ("encoder.blok*", ValueError, "layer pattern 'encoder.blok\\*' matches no module; closest: 'encoder.*'"),
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


def test_spread_evenly():
    names = [str(i) for i in range(200)]
    chosen = layers.spread_evenly(names)
    assert len(set(chosen)) == 64
    assert (chosen[0], chosen[-1]) == ("0", "199")
    assert layers.spread_evenly(names[:64]) == names[:64]


@dataclass
class Output:
    ids: torch.Tensor
    hidden: torch.Tensor


def test_first_float_tensor_of_any_output():
    x, y, ids = torch.ones(2, 3), torch.zeros(2, 3), torch.ones(2, dtype=torch.int64)
    for output in (x, (ids, x), [(x, y)], {"ids": ids, "a": x}, {"a": y, "last_hidden_state": x}, Output(ids, x)):
        assert features.read_tensor(output, None) is x
    assert features.read_tensor((ids, None, "text"), None) is None
    assert features.read_tensor((x, y), lambda output: output[1]) is y


def test_feature_functions():
    tokens, image, vector = torch.randn(2, 5, 3), torch.randn(2, 3, 4, 4), torch.randn(2, 3)
    assert torch.equal(features.to_features(tokens, 0, None), tokens)
    assert torch.equal(features.to_features(tokens, 0, "mean"), tokens.mean(1))
    assert torch.allclose(features.to_features(image, 0, "mean"), image.mean((2, 3)))
    assert torch.equal(features.to_features(vector, 0, "mean"), vector)
    assert torch.equal(features.to_features(tokens, 0, "cls"), tokens[:, 0])
    assert torch.equal(features.to_features(tokens.transpose(0, 1), 1, "cls"), tokens[:, 0])
    with pytest.raises(ValueError, match=r"unknown feature_fn 'max'; expected one of \['cls', 'flatten', 'mean'\]"):
        features.check_feature_fn("max")
