"""Gram matrices of some samples, against those of their features."""

import pytest
import torch
from lightning_cka.hsic.packed import NOT_FINITE, diagonals, row_states, squared_distances
from lightning_cka.hsic.products import hsic_products
from lightning_cka.hsic.stack import pack_features
from lightning_cka.hsic.subset import first_samples, select_samples


def features(n, dtype=torch.float64):
    made = torch.Generator().manual_seed(n)
    return [(torch.randn(n, d, generator=made, dtype=torch.float64) * s + 5).to(dtype) for d, s in ((3, 1), (40, 100))]


@pytest.mark.parametrize(
    ("n", "places"), [(20, [0, 3, 4, 7, 19]), (9, [8, 2, 5, 1]), (4, [0, 1, 2, 3]), (33, range(1, 33))]
)
@pytest.mark.parametrize("unbiased", [True, False])
def test_a_subset_equals_the_grams_of_its_features(n, places, unbiased):
    places = list(places)
    found = select_samples(pack_features(features(n)), places)
    expected = pack_features([x[places] for x in features(n)])
    for one, other in zip(*(hsic_products(each, None, unbiased=unbiased) for each in (found, expected)), strict=True):
        assert torch.allclose(one, other, rtol=1e-10)
    for function in (diagonals, squared_distances):
        one, other = (function(each).movedim(0, -1) * each.scales**2 for each in (found, expected))
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    squares = [each.row_squares * each.scales[:, None] ** 4 for each in (found, expected)]
    assert torch.allclose(*squares, rtol=1e-9)


def test_without_a_far_sample_the_others_keep_their_digits():
    x = features(64, torch.float32)[0]
    x[7] += 1e4
    rest = [i for i in range(64) if i != 7]
    found = select_samples(pack_features([x]), rest)
    expected = pack_features([x[rest]])
    one, other = (hsic_products(each, None, unbiased=True)[1] for each in (found, expected))
    assert float(one) == pytest.approx(float(other), rel=1e-4)


@pytest.mark.parametrize("n", [10, 16, 17, 40, 65])
def test_first_samples_are_those_of_their_features(n):
    u, offsets = first_samples(pack_features(features(n)), 16)
    m = len(offsets[0])
    assert m == (n if n <= 16 else min(16, (n + 1) // 2))
    expected = pack_features([x[:m] for x in features(n)])
    whole = pack_features(features(n))
    factor = (whole.scales / expected.scales) ** 2
    assert torch.allclose(offsets * factor[:, None], expected.offsets, rtol=1e-8)
    assert torch.allclose(u.square().sum(2) * factor[:, None] ** 2, expected.row_squares, rtol=1e-8)


def test_bad_samples_stay_bad():
    x = features(12)[0]
    x[3] = torch.nan
    found = select_samples(pack_features([x]), [1, 3, 5, 7])
    assert row_states(found)[0].tolist() == [0, NOT_FINITE, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [3.0, 300.0, 3e4, 3e6])
def test_left_out_far_samples_leave_the_digits_or_give_nan(far, dtype):
    x = torch.randn(40, 6, dtype=torch.float64)
    x[5] += far
    x[20] -= far / 2
    places = [place for place in range(40) if place not in (5, 20)]
    chosen = select_samples(pack_features([x.to(dtype)]), places)
    alone = pack_features([x[places].to(dtype).double()])
    scaled = [packed.halves.double() * packed.scales.double().square() for packed in (chosen, alone)]
    if chosen.scales.isnan():
        assert dtype == torch.float32
        assert far > 300
    else:
        cosine = (scaled[0] * scaled[1]).sum() / (scaled[0].norm() * scaled[1].norm())
        assert cosine > 1 - 1e-3
