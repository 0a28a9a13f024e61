"""`PackedGrams` hold everything that the full Gram matrices hold."""

import pytest
import torch
from lightning_cka.hsic import folding, packed, stack
from lightning_cka.hsic import functional as F


@pytest.mark.parametrize("n", [9, 4, 12])
def test_packed_grams_hold_everything(n):
    x = torch.randn(3, n, 4, dtype=torch.float64)
    full = torch.stack([F.centered_gram(layer) for layer in x])
    from_features = stack.pack_features(x)
    for other in (from_features, packed.pack_stack(full), packed.pack_stack(x @ x.mT)):
        scales = other.scales.square()[:, None, None] if other is from_features else 1.0
        assert torch.allclose(packed.unpack(other) * scales, full, atol=1e-12)
        assert torch.allclose(other.row_squares, folding.unfold(other.halves, n).square().sum(2))
        assert other.num_samples == n


def test_diagonals_and_distances_are_those_of_the_features():
    x = torch.randn(1, 9, 4, dtype=torch.float64)
    grams = packed.pack_stack(x @ x.mT)
    assert torch.allclose(packed.diagonals(grams), (x - x.mean(1)).square().sum(2))
    assert torch.allclose(packed.squared_distances(grams), torch.cdist(x, x).square())


def test_selected_layers_are_those_of_the_index():
    x = torch.randn(3, 9, 4)
    grams = stack.pack_features(x)
    for selected in (packed.select_layers(grams, [2, 0]), packed.select_layers(grams, slice(2, None))):
        assert all(torch.equal(part[0], whole[2]) for part, whole in zip(selected, grams, strict=True))
    assert len(packed.select_layers(grams, [2, 0]).halves) == 2


@pytest.mark.parametrize(("factor", "expected"), [(1.0, False), (1e4, False), (1e10, True)])
def test_a_far_outlier_makes_the_distances_of_a_layer_imprecise(factor, expected):
    x = torch.randn(64, 16)
    x[5] *= factor
    grams = stack.pack_features([torch.randn(64, 3), x])
    assert packed.has_imprecise_distances(grams).tolist() == [False, expected]
