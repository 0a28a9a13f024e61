"""Each output is reduced to its Gram matrix inside the hook."""

import weakref

import naive
import pytest
import torch
from example_models import grams_of, hsic
from torch import nn


def test_gram_matrices_are_computed_from_the_outputs():
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(inplace=True), nn.Linear(9, 3)).double()
    batches = [torch.randn(n, 6, dtype=torch.float64) for n in (8, 3, 12)]
    names, grams = grams_of(model, batches)
    assert names == ("0", "2")
    assert list(grams) == [0, 2]  # A batch of three samples is skipped.
    with torch.no_grad():
        for index, packed in grams.items():
            n = len(batches[index])
            # The in-place ReLU comes after the hook has read its input.
            outputs = [model[0](batches[index]), model(batches[index])]
            expected = [
                [n * (n - 3) * naive.unbiased_hsic(naive.gram(a), naive.gram(b)) for b in outputs] for a in outputs
            ]
            assert torch.allclose(hsic(packed), torch.tensor(expected), rtol=1e-9)


def test_sequence_first_layers_give_the_same_as_batch_first():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Identity(), nn.Identity()

        def forward(self, x):
            self.first(x)
            self.second(x.transpose(0, 1))

    _, grams = grams_of(Both(), [torch.randn(9, 9, 4)], ["first", "second"])
    assert torch.allclose(hsic(grams[0]) / hsic(grams[0])[0, 0], torch.ones(2, 2, dtype=torch.float64), atol=1e-6)


def test_activations_of_two_layers_are_never_held_together():
    """Each activation is freed before the next layer's hook fires."""
    alive, most = weakref.WeakSet(), 0

    class Watched(nn.Linear):
        def forward(self, x):
            nonlocal most
            out = super().forward(x.detach().clone())
            alive.add(out)
            most = max(most, len(alive))
            return out

    grams_of(nn.Sequential(*[Watched(6, 6) for _ in range(6)]), [torch.randn(8, 6) for _ in range(3)])
    assert most <= 2  # The model itself holds a layer's input and its output.


def test_a_layer_that_cannot_be_read_on_some_batch_is_nan_with_a_warning():
    class SometimesWrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            y = self.a(x)
            return self.b(y) if len(x) < 9 else self.b(y[:2])

    batches = [torch.randn(8, 3), torch.randn(9, 3)]
    with pytest.warns(UserWarning) as caught:
        _, grams = grams_of(SometimesWrong(), batches)
    assert "layer 'b' gave Tensor(2, 3) float32 for a batch of 9 samples: its CKA is nan" in str(caught[0].message)
    assert hsic(grams[1])[:, 1].isnan().all()
    assert not hsic(grams[1])[0, 0].isnan()


def test_a_second_call_does_not_replace_a_first_that_cannot_be_read():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x):
            return self.a(x[:2] if len(x) == 9 else x), self.a(x)

    with pytest.warns(UserWarning, match="first call|its CKA is nan") as caught:
        _, grams = grams_of(Twice(), [torch.randn(8, 3), torch.randn(9, 3)])
    assert len([w for w in caught if "its CKA is nan" in str(w.message)]) == 1
    assert hsic(grams[1]).isnan().all()


def test_callable_feature_fn_reads_the_raw_output():
    class Pair(nn.Module):
        def forward(self, x):
            return x, {"second": x[:, :1]}

    model = nn.Sequential(Pair())
    _, grams = grams_of(model, [torch.randn(8, 3)], "0", feature_fn=lambda output: output[1]["second"])
    assert not hsic(grams[0]).isnan().any()
