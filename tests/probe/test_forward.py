"""How a batch is passed to a model."""

import pytest
import torch
from example_models import Takes
from lightning_cka import CKAMonitor, compare_models
from lightning_cka.probe.forward import default_forward
from torch import nn


class KeywordsOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, **inputs):
        return self.layer(inputs["x"])


def test_default_forward_accepts_the_usual_batches():
    x, label = torch.randn(5, 3), torch.zeros(5)
    model = Takes(lambda y, mask: (y, mask))
    for batch in (x, (x, label), [x, label]):
        assert default_forward(model, batch)[1] is None
    for batch in ({"x": x, "mask": label, "id": label}, ({"x": x, "mask": label}, label)):
        assert default_forward(model, batch)[1] is label
    assert default_forward(KeywordsOnly(), {"x": x, "y": label}).shape == (5, 3)
    whole = Takes(lambda y, mask: y)
    whole.forward = lambda batch: batch["image"]
    assert default_forward(whole, {"image": x}) is x


def test_the_arguments_of_a_wrapped_model_are_those_of_the_model():
    class Named(nn.Module):
        def forward(self, ids):
            return ids

    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.inner.kind = "named"

        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("inner"), name)

        def forward(self, *args, **kwargs):
            return self.inner(*args, **kwargs)

    ids = torch.ones(4, 2)
    assert default_forward(Wrapper(Named()), {"ids": ids, "labels": ids[0]}) is ids


@pytest.mark.parametrize("name", ["forward_fn", "reference_forward_fn"])
def test_a_forward_fn_that_cannot_be_called_is_refused_at_once(name):
    message = f"^{name} must be a function of a module and a batch, but is a str: 'net.forward'"
    with pytest.raises(TypeError, match=message):
        CKAMonitor(nn.Linear(2, 2), **{name: "net.forward"})
    with pytest.raises(TypeError, match=message):
        compare_models(nn.Linear(2, 2), nn.Linear(2, 2), [torch.randn(8, 2)], **{name: "net.forward"})


def test_texts_and_paths_of_another_type_are_refused_at_once():
    with pytest.raises(TypeError, match="log_key_prefix must be a text, but is None"):
        CKAMonitor(log_key_prefix=None)
    with pytest.raises(TypeError, match="dirpath must be a path or None, but is 3"):
        CKAMonitor(dirpath=3)
