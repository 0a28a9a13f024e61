"""How outputs are read."""

from dataclasses import dataclass

import pytest
import torch
from lightning_cka.probe import features


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
