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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_last_token_wherever_the_padding_is(dtype):
    tokens = torch.randn(5, 4, 3).to(dtype)
    # Padding on the right, on the left, within, none, and no token at all.
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    found = features.to_features(tokens, 0, "last", mask)
    for row, output, kept in zip(found, tokens, mask.tolist(), strict=True):
        places = [place for place, is_token in enumerate(kept) if is_token]
        expected = output[places[-1]] if places else torch.full((3,), torch.nan, dtype=dtype)
        assert torch.equal(row.nan_to_num(9), expected.nan_to_num(9))
    assert torch.equal(features.to_features(tokens.transpose(0, 1), 1, "last", mask).nan_to_num(), found.nan_to_num())
    assert torch.equal(features.to_features(tokens, 0, "last"), tokens[:, -1])  # Without a mask.
    assert torch.equal(features.to_features(tokens[:, :3], 0, "last", mask), tokens[:, 2])  # The mask does not fit.
    for other in (torch.randn(5, 3), torch.randn(5, 3, 2, 2)):
        assert torch.equal(features.to_features(other, 0, "last", mask), other)


def test_the_last_token_of_packed_and_nested_sequences():
    sequences = [torch.randn(length, 3) for length in (2, 4, 1)]
    last = torch.stack([sequence[-1] for sequence in sequences])
    packed = torch.nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)
    assert torch.equal(features.read_tensor(packed, "last"), last)
    assert torch.equal(
        features.read_tensor(torch.nested.as_nested_tensor(sequences, layout=torch.jagged), "last"), last
    )


def test_feature_functions():
    tokens, image, vector = torch.randn(2, 5, 3), torch.randn(2, 3, 4, 4), torch.randn(2, 3)
    assert torch.equal(features.to_features(tokens, 0, None), tokens)
    assert torch.equal(features.to_features(tokens, 0, "mean"), tokens.mean(1))
    assert torch.allclose(features.to_features(image, 0, "mean"), image.mean((2, 3)))
    assert torch.equal(features.to_features(vector, 0, "mean"), vector)
    assert torch.equal(features.to_features(tokens, 0, "cls"), tokens[:, 0])
    assert torch.equal(features.to_features(tokens.transpose(0, 1), 1, "cls"), tokens[:, 0])
    with pytest.raises(
        ValueError, match=r"unknown feature_fn 'max'; expected one of \['cls', 'flatten', 'last', 'mean', 'tokens', "
    ):
        features.check_feature_fn("max")
