"""Which tokens are padding."""

import pytest
import torch
from lightning_cka.probe.padding import token_mask, warn_of_empty_samples, warn_of_padded_layers

MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])


def test_the_mask_of_a_batch_or_of_its_first_element():
    for batch in ({"attention_mask": MASK}, ({"attention_mask": MASK.float()}, torch.zeros(2))):
        assert torch.equal(token_mask(batch, 2), MASK.bool())
    for batch in (torch.ones(2), [], {}, {"attention_mask": MASK[None]}, {"attention_mask": MASK[:1]}):
        assert token_mask(batch, 2) is None


def test_a_mask_that_is_added_to_scores_raises():
    with pytest.raises(ValueError, match=r"negative values, .* expect 1 for a token and 0 for padding"):
        token_mask({"attention_mask": -1e9 * (1.0 - MASK)}, 2)


def test_warnings():
    warn_of_empty_samples(MASK.bool(), (7, 9), "dataset index")
    with pytest.warns(UserWarning, match=r"leaves no token of samples \(dataset index\) 9: their features are nan"):
        warn_of_empty_samples(torch.tensor([[True], [False]]), (7, 9), "dataset index")
    shapes = {"tokens": (2, 3, 5), "vector": (2, 5), "patches": (2, 4, 5)}
    warn_of_padded_layers(shapes, MASK > -1, "mean")  # No padding.
    for feature_fn in ("mean", "last"):
        message = rf"feature_fn='{feature_fn}' includes padding in the features of layers .*\(2, 3\).*: patches$"
        with pytest.warns(UserWarning, match=message):
            warn_of_padded_layers(shapes, MASK.bool(), feature_fn)
