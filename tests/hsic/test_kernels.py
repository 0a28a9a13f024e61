"""Kernels against their definitions, in single batches, the metric and banks."""

import itertools
import warnings

import naive
import numpy as np
import pytest
import torch
from lightning_cka import MinibatchCKA, compare_banks, functional
from lightning_cka.compare.flags import Thresholds
from lightning_cka.hsic.check_kernels import check_kernels
from lightning_cka.hsic.kernels import RBF, kernel_name, median_of
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.bank_batch import BankBatch

OFF = Thresholds.off()


def demo():
    """The demonstration of google-research/representation_similarity."""
    random = np.random.RandomState(1337)
    x = random.randn(100, 10)
    return torch.tensor(x), torch.tensor(random.randn(100, 10) + x)


def test_the_published_value():
    x, y = demo()
    for kernel in ("rbf", RBF(threshold=0.5)):
        assert functional.cka(x, y, kernel=kernel, unbiased=False).item() == pytest.approx(0.65483, abs=5e-6)
    assert functional.cka(x.float(), y.float(), kernel="rbf", unbiased=False).item() == pytest.approx(0.65483, abs=5e-6)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize(
    ("kernel", "gram"),
    [
        (RBF(0.2), lambda x: naive.rbf_gram(x, 0.2)),
        (RBF(0.8), lambda x: naive.rbf_gram(x, 0.8)),
        ("distance", naive.distance_gram),
        (lambda squared: 1 / (1 + squared), lambda x: 1 / (1 + naive.squared_distances(x))),
    ],
)
def test_single_batches_match_the_definitions(kernel, gram, unbiased):
    x, y = (z[:40] + 3 for z in demo())
    hsic = naive.unbiased_hsic if unbiased else naive.biased_hsic
    expected = naive.cka(x.numpy(), y.numpy(), hsic=hsic, gram=gram)
    assert functional.cka(x, y, kernel=kernel, unbiased=unbiased).item() == pytest.approx(expected, rel=1e-10)
    metric = MinibatchCKA(1, kernel=kernel, unbiased=unbiased)
    metric.update([x], [y])
    assert metric.compute().item() == pytest.approx(expected, rel=1e-10)
    metric = MinibatchCKA(1, kernel=kernel, unbiased=unbiased)
    metric.update([1e3 * x.float()], [1e-3 * y.float()] if isinstance(kernel, RBF) else [y.float()])
    if isinstance(kernel, RBF) or kernel == "distance":  # Neither depends on the features' scale.
        assert metric.compute().item() == pytest.approx(expected, rel=1e-5)


def test_distance_is_the_bias_corrected_distance_correlation():
    x, y = demo()
    expected = naive.bias_corrected_distance_correlation(x.numpy(), y.numpy())
    assert functional.cka(x, y, kernel="distance").item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("unbiased", [True, False])
def test_rbf_tends_to_linear_as_the_bandwidth_grows(unbiased):
    x, y = demo()
    linear = functional.cka(x, y, unbiased=unbiased)
    differences = [
        abs(functional.cka(x, y, kernel=RBF(t), unbiased=unbiased) - linear).item() for t in (1, 10, 100, 1000)
    ]
    assert differences[0] > 1e-2
    for one, other in itertools.pairwise(differences[1:]):  # The difference falls with the square of the bandwidth.
        assert one / other == pytest.approx(100, rel=0.1)
    assert differences[3] < 1e-6
    single = functional.cka(x.float(), y.float(), kernel=RBF(1e4), unbiased=unbiased)
    assert abs(single - linear) < 1e-6


def batches(count=5, n=24, d=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xs = [torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(count)]
    return xs, [x @ torch.ones(d, 3).double() + torch.randn(n, 3, generator=generator) for x in xs]


def test_the_first_batch_fixes_the_bandwidths():
    xs, ys = batches()
    xs[1] = 5 * xs[1]  # Its own median distance differs.
    medians = [np.median(naive.squared_distances(z[0])) for z in (xs, ys)]
    sums = np.zeros(3)
    for x, y in zip(xs, ys, strict=True):
        k, ell = naive.rbf_gram(x, median=medians[0]), naive.rbf_gram(y, median=medians[1])
        sums += [naive.unbiased_hsic(k, ell), naive.unbiased_hsic(k, k), naive.unbiased_hsic(ell, ell)]
    metric = MinibatchCKA(1, kernel="rbf")
    for x, y in zip(xs, ys, strict=True):
        metric([x], [y])  # `forward` must not change the bandwidths.
    expected = sums[0] / np.sqrt(sums[1] * sums[2])
    assert metric.compute().item() == pytest.approx(expected, rel=1e-10)
    metric.reset()
    metric.update([xs[1]], [ys[1]])
    assert metric.compute().item() == pytest.approx(naive.cka(xs[1], ys[1], gram=naive.rbf_gram), rel=1e-10)


def bank(features, name="model"):
    made = GramBank(("a",), name)
    for index in reversed(range(len(features))):  # The order of the batches does not matter.
        grams = pack_features([features[index]])
        made.add(BankBatch(index, grams, str(index), tuple(range(len(features[index])))))
    return made


@pytest.mark.parametrize("threshold", [0.5, 2.0])
@pytest.mark.parametrize("unbiased", [True, False])
def test_all_batches_of_a_bank_fix_the_bandwidths(threshold, unbiased):
    xs, ys = batches()
    xs[1] = 5 * xs[1]  # Its own median distance differs.
    medians = [np.mean([np.median(naive.squared_distances(each)) for each in z]) for z in (xs, ys)]
    hsic, sums = naive.unbiased_hsic if unbiased else naive.biased_hsic, np.zeros(3)
    for x, y in zip(xs, ys, strict=True):
        k, ell = (naive.rbf_gram(z, threshold, median) for z, median in zip((x, y), medians, strict=True))
        sums += [hsic(k, ell), hsic(k, k), hsic(ell, ell)]
    result = compare_banks(bank(xs), bank(ys), kernel=RBF(threshold), unbiased=unbiased, thresholds=OFF)
    expected = sums[0] / np.sqrt(sums[1] * sums[2])
    assert result.matrix.item() == pytest.approx(expected, rel=1e-10)
    metric = MinibatchCKA(1, kernel=RBF(threshold), unbiased=unbiased)
    for x, y in zip(xs, ys, strict=True):
        metric.update([x], [y])
    assert abs(metric.compute().item() - expected) > 1e-3  # It streams, so that it keeps its first batch.


@pytest.mark.parametrize("kernel", ["distance", "linear"])
@pytest.mark.parametrize("unbiased", [True, False])
def test_banks_and_the_metric_give_the_same(kernel, unbiased):
    xs, ys = batches(n=64)
    metric = MinibatchCKA(1, kernel=kernel, unbiased=unbiased)
    for x, y in zip(xs, ys, strict=True):
        metric.update([x], [y])
    result = compare_banks(bank(xs), bank(ys), kernel=kernel, unbiased=unbiased, thresholds=OFF)
    assert torch.allclose(result.matrix, metric.compute(), rtol=1e-12)
    assert (result.kernel, result.unbiased) == (kernel_name(kernel), unbiased)
    own = bank(xs)
    assert compare_banks(own, own, kernel=kernel, unbiased=unbiased, thresholds=OFF).matrix.item() == 1


def test_median_is_that_of_numpy():
    for n in (3, 4):
        values = torch.rand(n, n)
        assert median_of(values).item() == pytest.approx(np.median(values.numpy()))
    assert median_of(torch.tensor([[0.0, torch.nan], [1.0, 2.0]])).isnan()


def test_layers_without_variance_or_bandwidth_are_nan_with_a_warning():
    constant, sparse = torch.full((32, 4), 0.1), torch.zeros(32, 4)
    sparse[:6] = torch.randn(6, 4)  # Most pairs of samples have distance zero.
    metric = MinibatchCKA(["constant", "sparse", "fine"], kernel="rbf")
    metric.update([constant, sparse, torch.randn(32, 4)])
    with pytest.warns(UserWarning) as caught:
        matrix = metric.compute()
    assert matrix.isnan().tolist() == [[True] * 3, [True] * 3, [True, True, False]]
    messages = sorted(str(warning.message) for warning in caught)
    assert messages[0].endswith("which leaves the RBF kernel without a bandwidth: sparse")
    assert messages[1].endswith("whose activations have no variance: constant")
    banks = [bank([z, z]) for z in (sparse.clone(), torch.randn(32, 4))]
    with pytest.warns(UserWarning, match="RBF kernel without a bandwidth: a"):
        assert compare_banks(*banks, kernel="rbf").matrix.isnan().all()


def test_a_far_outlier_does_not_dominate_rbf():
    x, y = torch.randn(256, 16), torch.randn(256, 16)
    x[3], y[3] = 1e3 * x[3], 1e3 * y[3]
    assert abs(functional.cka(x, y, unbiased=False)) > 0.9
    assert abs(functional.cka(x, y, kernel="rbf")) < 0.1


@pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)")
@pytest.mark.parametrize("kernel", ["linear", "rbf", RBF(0.2), "distance"])
@pytest.mark.parametrize("factor", [1e3, 1e5, 1e6, 1e7, 1e8, 1e12, 1e20, 1e30])
def test_with_a_far_outlier_cka_is_precise_or_nan(kernel, factor):
    """In float32. Centering with the mean, which the outlier moves, would lose all precision from 1e4 on."""
    x = torch.randn(256, 16)
    y = x @ torch.randn(16, 16) / 4 + 0.5 * torch.randn(256, 16)
    x[77] *= factor
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = compare_banks(bank(x.split(64)), bank(y.split(64)), kernel=kernel)
    messages = [str(warning.message) for warning in caught]
    value = result.matrix.item()
    if factor <= 1e6 or (kernel == "linear" and factor <= 1e12):
        assert not np.isnan(value)
    if factor >= 1e8 and kernel != "linear":
        assert np.isnan(value)
    if not np.isnan(value):
        exact = [bank(z.double().split(64)) for z in (x, y)]
        expected = compare_banks(*exact, kernel=kernel, thresholds=OFF).matrix.item()
        assert value == pytest.approx(expected, abs=2e-3)
    else:
        assert any("outliers beyond floating-point precision: a" in message for message in messages)
    if kernel == "linear" and factor <= 1e12:
        # By the jackknife, the error is as large as the sample's influence.
        reasons = {"trace_ratio", "leave_one_out", "standard_error"}
        assert {flag.reason for flag in result.flags if not flag.of_reference} == reasons
        # 13 is the sample's index in its batch.
        assert any("single samples dominate" in message and "at sample 13)" in message for message in messages)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check_kernels("gauss"), ValueError, r"unknown kernel 'gauss'; expected one of .*'rbf'.*RBF\(...\)"),
        (lambda: check_kernels(3), TypeError, "a name or a function of squared distances, but is 3"),
        (lambda: check_kernels([]), ValueError, "kernel is empty"),
        (lambda: check_kernels(["rbf", RBF(0.5), "rbf"]), ValueError, "kernel 'rbf' is given twice"),
        (lambda: check_kernels("precomputed"), ValueError, "a model gives features, not Gram matrices"),
        (lambda: check_kernels(lambda d: d.sum()), ValueError, r"'custom' must turn .* gave shape \(\) and"),
        (lambda: check_kernels(lambda d: 1.0), ValueError, "but gave a float"),
        (lambda: check_kernels(lambda d: d > 1), ValueError, "dtype torch.bool"),
        (lambda: check_kernels(lambda d: 1 / d), ValueError, "kernel 'custom' has values that are not finite"),
        (lambda: check_kernels(lambda d: d.cumsum(0)), ValueError, "is not symmetric"),
        (lambda: RBF(0.0), ValueError, "must be positive, but is 0.0"),
        (lambda: MinibatchCKA(2, kernel="gauss"), ValueError, "unknown kernel 'gauss'"),
    ],
)
def test_bad_kernels(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_several_kernels_have_distinct_names():
    def cauchy(squared):
        return 1 / (1 + squared)

    several = ["linear", RBF(0.2), RBF(0.8), cauchy, lambda squared: -squared]
    assert list(check_kernels(several)) == ["linear", "rbf", "rbf-2", "cauchy", "custom"]
    assert [kernel_name(kernel) for kernel in several] == ["linear", "rbf(0.2)", "rbf(0.8)", "cauchy", "custom"]
    assert list(check_kernels("distance")) == ["distance"]


@pytest.mark.parametrize(
    "container", [("rbf", "linear"), {"rbf": 1, "linear": 2}.keys(), (name for name in ("rbf", "linear"))]
)
def test_any_container_is_a_list_of_kernels(container):
    assert list(check_kernels(container)) == ["rbf", "linear"]


def test_kernels_in_a_set_have_the_same_order_in_each_process():
    assert list(check_kernels({"rbf", RBF(0.2), "linear"})) == ["linear", "rbf", "rbf-2"]
    assert list(check_kernels(RBF(0.2))) == ["rbf"]
