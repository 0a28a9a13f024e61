"""Layers with complex outputs, with NumPy arrays, or with some of the samples only."""

import numpy as np
import pytest
import torch
from lightning_cka import compare_models
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:CKA.*layers (whose CKA|that vary)")
BATCHES = [torch.randn(16, 8, generator=torch.Generator().manual_seed(i)) for i in range(4)]


class Spectrum(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.weight = nn.Linear(8, 12), nn.Linear(12, 12, dtype=torch.complex64)
        self.last = nn.Linear(12, 4)

    def forward(self, x):
        return self.last(self.weight(torch.fft.fft(self.first(x))).abs())


def compare(model, layers=None, batches=BATCHES, **kwargs):
    return compare_models(model, model, batches, layers, progress_bar=False, **kwargs)


def test_complex_layers_are_left_out_or_named_before_anything_is_compared(caplog):
    assert compare(Spectrum()).layers == ("first", "last")
    assert "'weight' (Tensor(12, 12) complex64) is complex" in caplog.text
    with pytest.raises(ValueError, match=r"layer 'weight' .*with feature_fn=torch.view_as_real"):
        compare(Spectrum(), "weight")
    with pytest.raises(ValueError, match=r"feature_fn gave Tensor.* complex64.* is complex"):
        compare(Spectrum(), "first", feature_fn=lambda output: output.to(torch.complex64))
    result = compare(Spectrum(), "weight", feature_fn=torch.view_as_real)
    assert result.matrix.item() == pytest.approx(1.0)


def test_complex_tensors_inside_tuples_and_dicts():
    class Pair(nn.Module):
        def __init__(self, wrap):
            super().__init__()
            self.inner = Inner(wrap)

        def forward(self, x):
            return self.inner(x)

    class Inner(nn.Linear):
        def __init__(self, wrap):
            super().__init__(8, 8)
            self.wrap = wrap

        def forward(self, x):
            return self.wrap(torch.fft.fft(super().forward(x)))

    for wrap in (lambda y: (y, 3), lambda y: {"spectrum": y}):
        with pytest.raises(ValueError, match="is complex: compare such layers alone"):
            compare(Pair(wrap), "inner")


class ToNumPy(nn.Module):
    def __init__(self, convert=lambda x: x.detach().numpy()):
        super().__init__()
        self.convert, self.first, self.out = convert, nn.Linear(8, 6), nn.Linear(6, 6)
        self.array = Converts(convert)

    def forward(self, x):
        return self.out(torch.from_numpy(np.array(self.array(self.first(x)), dtype=np.float32)))


class Converts(nn.Module):
    def __init__(self, convert):
        super().__init__()
        self.convert = convert

    def forward(self, x):
        return self.convert(x)


def test_a_layer_that_returns_an_array():
    for convert in (lambda x: x.detach().numpy(), lambda x: x.detach().double().numpy()[:, ::-1]):
        result = compare(ToNumPy(convert), ["first", "array"])
        assert torch.allclose(result.matrix, torch.ones(2, 2).double(), atol=1e-5)
    result = compare(ToNumPy(), "first", feature_fn=lambda output: output.numpy())
    assert result.matrix.item() == pytest.approx(1.0)


def test_batches_of_arrays():
    arrays = [batch.numpy() for batch in BATCHES]
    for batches in (arrays, [(array, 0) for array in arrays], [{"x": array} for array in arrays]):
        with pytest.raises(ValueError, match="NumPy arrays must be converted to tensors") as caught:
            compare(Spectrum(), batches=batches)
        assert "NumPy array(16, 8) float32" in str(caught.value)
        assert len(str(caught.value)) < 600


class Experts(nn.Module):
    """Each sample goes to one of two experts; on the first batch, all go to the first."""

    def __init__(self):
        super().__init__()
        self.experts, self.join = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)]), nn.Linear(8, 8)

    def forward(self, x):
        second = x[:, 0] > 0
        y = torch.zeros_like(x)
        for expert, chosen in zip(self.experts, (~second, second), strict=True):
            if chosen.any():
                y[chosen] = expert(x[chosen])
        return self.join(y)


def test_experts_that_get_some_of_the_samples(caplog):
    assert compare(Experts()).layers == ("join",)
    assert "If the layer gets some of the samples only, as an expert that a router chooses" in caplog.text
    batches = [torch.linspace(-1, 1, 16)[:, None].expand(16, 8).contiguous()] * 4
    with pytest.raises(ValueError, match=r"its first has 8 for 16 samples. If the layer gets some of the samples only"):
        compare(Experts(), "experts.0", batches)


@pytest.mark.filterwarnings("ignore:layer 'experts.0' gave", "ignore:the batches of the dataloader are not")
def test_experts_that_get_all_samples_of_the_first_batch_only():
    batches = [-BATCHES[0].abs(), *BATCHES[1:]]
    with pytest.warns(UserWarning, match="did not give one row per sample, such as experts.*: experts.0"):
        result = compare(Experts(), ["experts.0", "join"], batches)
    assert result.matrix.isnan().tolist() == [[True, True], [True, False]]
    assert result.diagnostics.layers["experts.0"].trace_ratios == ()
