"""With far samples, kernels of distances keep their digits or are nan, in every route, dtype and estimator."""

import naive
import numpy as np
import pytest
import torch
from lightning_cka import MinibatchCKA, compare_models, functional
from lightning_cka.hsic.distance_errors import gram_variances, hides_digits, packed_variances, zero_rounding_errors
from lightning_cka.hsic.kernel_grams import apply_kernel, precise_distances
from lightning_cka.hsic.kernels import RBF
from lightning_cka.hsic.packed import squared_distances
from lightning_cka.hsic.stack import pack_features
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:CKA", "ignore:.*layers (that|whose)", "ignore:single samples")


def inverse(squared):
    return 1 / (1 + squared)


def exponential(squared):
    return torch.exp(-squared.clamp(min=0) / 4)


def distances(x):
    """The squared distances, by direct differences in float64."""
    x = x.double()
    return (x[:, None] - x).square().sum(2).numpy()


KERNELS = {
    "rbf": ("rbf", lambda d: np.exp(-2 * d / np.median(d))),
    "narrow rbf": (RBF(0.2), lambda d: np.exp(-12.5 * d / np.median(d))),
    "distance": ("distance", lambda d: -np.sqrt(d)),
    "inverse": (inverse, lambda d: 1 / (1 + d)),
    "exponential": (exponential, lambda d: np.exp(-d / 4)),
}


def two_far_samples(x, far):
    x[5] += far
    x[20] -= far / 2


def three_far_samples(x, far):
    x[[1, 2, 30]] += far * torch.tensor([[1.0], [2.0], [-1.0]])


def far_group(x, far):
    x[:9] += far


def two_groups(x, far):
    x[::2] += far


FAR = [two_far_samples, three_far_samples, far_group, two_groups]


class Show(nn.Module):
    """Returns features that are in the batch, by one layer for each pair of features."""

    def __init__(self, side, count):
        super().__init__()
        self.side, self.h = side, nn.ModuleList(nn.Identity() for _ in range(count))

    def forward(self, batch):
        return [h(batch[:, :, place, self.side]) for place, h in enumerate(self.h)]


def by_models(pairs, kernel, unbiased):
    batches = [torch.stack([torch.stack(pair, -1) for pair in pairs], -2)]
    models = (Show(side, len(pairs)) for side in range(2))
    result = compare_models(*models, batches, "h.*", kernel=kernel, unbiased=unbiased, progress_bar=False)
    return result.matrix.diagonal().tolist()


def by_metric(pairs, kernel, unbiased):
    metric = MinibatchCKA(len(pairs), kernel=kernel, unbiased=unbiased)
    metric.update(*map(list, zip(*pairs, strict=True)))
    return metric.compute().reshape(len(pairs), -1).diagonal().tolist()


def by_function(pairs, kernel, unbiased):
    return [functional.cka(x, y, kernel=kernel, unbiased=unbiased).item() for x, y in pairs]


ROUTES = [by_models, by_metric, by_function]


def features(d, place, far, dtype, *, both):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, d, generator=generator, dtype=torch.float64)
    y = x + torch.randn(40, d, generator=generator, dtype=torch.float64)
    for z in (x, y) if both else (x,):
        place(z, far)
    return x.to(dtype), y.to(dtype)


def cka(x, y, gram, hsic):
    k, ell = (gram(distances(z)) for z in (x, y))
    return hsic(k, ell) / np.sqrt(hsic(k, k) * hsic(ell, ell))


def test_these_references_are_the_naive_ones():
    x, y = features(3, two_far_samples, 10.0, torch.float64, both=True)
    assert np.allclose(distances(x), naive.squared_distances(x), rtol=1e-14)
    for kernel, gram in (("rbf", naive.rbf_gram), ("distance", naive.distance_gram)):
        expected = naive.cka(x, y, gram=gram)
        assert cka(x, y, KERNELS[kernel][1], naive.unbiased_hsic) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("place", FAR)
@pytest.mark.parametrize(("d", "both"), [(1, True), (6, False)])
def test_far_samples_leave_the_digits_or_give_nan(d, both, place, dtype):
    finite = 0
    far = [each for each in (1e2, 3e4, 1e7) if dtype != torch.float16 or each <= 3e4]
    pairs = [features(d, place, each, dtype, both=both) for each in far]
    for kernel, gram in KERNELS.values():
        for unbiased, hsic in ((True, naive.unbiased_hsic), (False, naive.biased_hsic)):
            expected = [cka(x, y, gram, hsic) for x, y in pairs]
            for route in ROUTES:
                values = np.array(route(pairs, kernel, unbiased))
                is_finite = ~np.isnan(values)
                finite += is_finite.sum()
                np.testing.assert_allclose(
                    values[is_finite], np.array(expected)[is_finite], rtol=0, atol=2e-3, err_msg=f"{route} {kernel}"
                )
    assert finite > 30


@pytest.mark.parametrize("route", [by_metric, by_function])
@pytest.mark.parametrize(("kernel", "gram"), KERNELS.values())
@pytest.mark.parametrize("place", FAR)
def test_where_features_are_known_float64_keeps_the_digits(place, kernel, gram, route):
    x, y = features(2, place, 3e4, torch.float32, both=True)
    assert route([(x, y)], kernel, True) == pytest.approx([cka(x, y, gram, naive.unbiased_hsic)], abs=1e-5)


def test_a_layer_with_far_samples_does_not_affect_others():
    x, y = features(2, far_group, 3e4, torch.float32, both=False)
    metric = MinibatchCKA(2, 1, kernel=inverse)
    metric.update([x, y + 1], [y])
    assert metric.compute()[1].item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kernel", ["rbf", RBF(0.2), "distance", lambda d: 1 / (1 + d / d.mean())])
@pytest.mark.parametrize("d", [1, 3, 300])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_usual_features_are_never_nan(kernel, d, scale):
    """Copies, groups, sparse features and large means occur in any network."""
    x = torch.randn(64, d)
    for z in (x, x.relu() + 1e-3 * x, x + 10, x + 10 * (torch.arange(64) % 4)[:, None], torch.cat([x[:48], x[:16]])):
        for dtype in (torch.float32, torch.bfloat16):
            made = apply_kernel(kernel, pack_features([(scale * z).to(dtype)]))
            assert made.scales.isfinite().all()


@pytest.mark.parametrize("d", [1, 2, 16, 400, 3000])
@pytest.mark.parametrize("place", [two_far_samples, far_group, two_groups, lambda x, far: None])
def test_variances_are_not_below_the_errors(d, place):
    """Of the float32 distances, against those of the same features in float64."""
    x, _ = features(d, place, 1e3, torch.float32, both=False)
    grams = pack_features([x])
    wide = grams._replace(**{name: part.double() for name, part in grams._asdict().items()})
    squared = squared_distances(wide)
    exact = torch.cdist(x.double(), x.double()).square() / wide.scales.square()
    relative, factors, shifts, common, _floors = packed_variances(grams, squared)
    entries = squared / 2 + wide.offsets[:, :, None] + wide.offsets[:, None, :]
    variance = relative[:, None, None] * entries.square() + factors[:, :, None] * factors[:, None]
    variance = (variance + (shifts + common)[:, :, None] + (shifts + common)[:, None])[0]
    off = ~torch.eye(40, dtype=torch.bool)
    ratios = ((squared[0] - exact)[off].square() / variance[off]).sqrt()
    assert ratios.square().mean() <= 1
    assert ratios.max() < 4


def test_digits_are_hidden_in_proportion_to_the_norm():
    """|E|^2 of the kernel D -> -D/2 is known: half of the variances' sum, over all pairs i != j."""
    squared = torch.rand(1, 6, 6, dtype=torch.float64)
    squared = squared + squared.mT + 1
    variances = gram_variances(torch.full((1, 6), 1e-2, dtype=torch.float64), torch.float32)
    factor = variances.factors[0, 0] ** 2
    # All slopes are -1/2, so that centering removes the errors that samples have in common.
    errors = 30 * factor / 4
    for share, expected in ((1.01, False), (0.99, True)):
        norms = (errors / 2e-3 * share)[None]
        assert hides_digits(lambda d: -d / 2, squared, variances, 0 * squared, norms).item() == expected


def test_distances_of_the_size_of_rounding_errors_become_zero():
    squared = torch.tensor([[0.0, 1e-7], [1e-7, 1e-3]])
    found = zero_rounding_errors(squared, torch.ones(2, 2), torch.float32)
    assert torch.equal(found, torch.tensor([[0.0, 0.0], [0.0, 1e-3]]))
    assert zero_rounding_errors(torch.tensor([torch.nan]), torch.ones(1), torch.float32).isnan()


def test_weighted_sums_of_variances_equal_those_of_the_matrix():
    made = torch.Generator().manual_seed(0)
    packed = pack_features([torch.randn(12, 5, generator=made) * size for size in (1.0, 30.0)])
    squared = precise_distances(packed)
    variances = packed_variances(packed, squared)
    entries, weights = torch.randn(2, 12, 12, generator=made).double(), torch.rand(2, 12, generator=made).double()
    expected = (variances.single(entries) * weights[:, None]).sum(2)
    torch.testing.assert_close(variances.weighted(entries, weights), expected, rtol=1e-12, atol=0)
