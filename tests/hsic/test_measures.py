"""Measures against naive references in float64, their check values, and their invariances."""

import naive
import numpy as np
import pytest
import torch
from lightning_cka import RSA, MinibatchMutualKNN, MinibatchRidge, MinibatchRSA, MutualKNN, Ridge
from lightning_cka.hsic.check_measures import check_measures
from lightning_cka.hsic.kernels import RBF
from lightning_cka.hsic.measure import CKA
from lightning_cka.hsic.stack import pack_features
from sklearn.datasets import load_digits

MEASURES = {
    "mutual_knn": (MutualKNN(), naive.knn_vector),
    "uncorrected": (MutualKNN(corrected=False), lambda x: naive.knn_vector(x, corrected=False)),
    "mutual_knn(0.3)": (MutualKNN(0.3), lambda x: naive.knn_vector(x, 0.3)),
    "rsa": (RSA(), naive.rsa_vector),
    "ridge": (Ridge(), naive.ridge_vector),
    "ridge(0.3)": (Ridge(0.3), lambda x: naive.ridge_vector(x, 0.3)),
}
METRICS = {"mutual_knn": MinibatchMutualKNN, "rsa": MinibatchRSA, "ridge": MinibatchRidge}


def similarity(measure, x, y):
    """Return the value of one batch of two layers."""
    one, other = (measure.vectors(pack_features([torch.as_tensor(z)])) for z in (x, y))
    c, a, b = one.products(other)
    return (c / (a[:, None] * b).sqrt()).item()


def digits():
    """Return two halves of the pixels of 256 digits, with noise so that no distances tie."""
    x = load_digits().data / 16 + 0.01 * np.random.RandomState(0).randn(1797, 64)
    return x[:256, :32], x[:256, 32:]


def gaussian():
    random = np.random.RandomState(1337)
    x = random.randn(100, 10)
    return x, random.randn(100, 10) + x


@pytest.mark.parametrize(
    ("data", "measure", "expected"),
    [
        (digits, CKA(), 0.348415),
        (digits, MutualKNN(), 0.403247),
        (digits, MutualKNN(corrected=False), 0.464093),
        (digits, RSA(), 0.274164),
        (digits, Ridge(), 0.206100),
        (gaussian, CKA(), 0.513456),
        (gaussian, MutualKNN(), 0.209112),
        (gaussian, MutualKNN(corrected=False), 0.289),
        (gaussian, RSA(), 0.492965),
        (gaussian, Ridge(), 0.493507),
    ],
)
def test_check_values(data, measure, expected):
    x, y = data()
    assert similarity(measure, x, y) == pytest.approx(expected, abs=6e-7)
    assert similarity(measure, x.astype(np.float32), y.astype(np.float32)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("n", [5, 17, 32])
def test_naive_reference_with_several_batches_and_layers(name, n):
    measure, vector = MEASURES[name]
    random = np.random.default_rng(0)
    xs = [[random.normal(size=(n, 7)), random.normal(size=(n, 3))] for _ in range(3)]
    ys = [[x[0] + random.normal(size=(n, 7)), x[1] ** 2, x[0][:, :1]] for x in xs]
    products = [
        measure.vectors(pack_features(list(map(torch.as_tensor, x)))).products(
            measure.vectors(pack_features(list(map(torch.as_tensor, y))))
        )
        for x, y in zip(xs, ys, strict=True)
    ]
    c, a, b = (sum(parts) for parts in zip(*products, strict=True))
    found = (c / (a[:, None] * b).sqrt()).numpy()
    assert np.allclose(found, naive.minibatch_similarity(xs, ys, vector), atol=1e-10)


def test_ties_get_mean_ranks_and_the_lower_index():
    x = np.array([0.0, 1.0, 2.0, 3.0, 3.0, 5.0, 6.0, 6.0, 8.0, 9.0, 9.0])[:, None]
    y = np.array([4.0, 4.0, 1.0, 0.0, 2.0, 2.0, 3.0, 7.0, 7.0, 5.0, 3.0])[:, None]
    for measure, vector in MEASURES.values():
        expected = naive.minibatch_similarity([[x]], [[y]], vector)[0, 0]
        assert similarity(measure, x, y) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("name", MEASURES)
def test_a_layer_is_like_itself_and_like_its_rotated_scaled_and_shifted_copy(name):
    measure = MEASURES[name][0]
    random = np.random.default_rng(1)
    x = random.normal(size=(40, 8))
    q, _ = np.linalg.qr(random.normal(size=(8, 8)))
    assert similarity(measure, x, x) == pytest.approx(1, abs=1e-12)
    assert similarity(measure, x, 7 * x @ q + 3) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", ["mutual_knn", "rsa", "ridge"])
def test_unrelated_layers_have_zero_on_average(name):
    measure = MEASURES[name][0]
    random = np.random.default_rng(2)
    values = [similarity(measure, random.normal(size=(20, 5)), random.normal(size=(20, 5))) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    uncorrected = [
        similarity(MutualKNN(corrected=False), random.normal(size=(20, 5)), random.normal(size=(20, 5)))
        for _ in range(100)
    ]
    assert np.mean(uncorrected) == pytest.approx(2 / 19, abs=0.02)  # Two of 19 others are neighbours.


@pytest.mark.parametrize("name", METRICS)
def test_layers_without_variance_and_with_nan_are_undefined(name):
    good, constant, broken = torch.randn(20, 4), torch.full((20, 4), 0.1), torch.randn(20, 4)
    broken[3, 1] = torch.nan
    metric = METRICS[name](["good", "constant", "broken"])
    metric.update([good, constant, broken])
    with pytest.warns(UserWarning, match="is nan for layers") as caught:
        found = metric.compute()
    assert found[0, 0] == pytest.approx(1)
    assert found.isfinite().sum() == 1
    assert any("whose activations have no variance: constant" in str(each.message) for each in caught)


@pytest.mark.parametrize("name", ["mutual_knn", "rsa", "ridge"])
@pytest.mark.parametrize(
    ("count", "distance"), [(1, 10.0), (1, 1e5), (1, 1e8), (3, 3e4), (40, 3e2), (40, 3e4), (40, 1e6)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_far_samples_leave_the_digits_or_make_the_layer_undefined(name, count, distance, dtype):
    measure = MEASURES[name][0]
    random = np.random.default_rng(3)
    x, y = random.normal(size=(256, 4)), random.normal(size=(256, 4))
    y += x
    x[:count] += distance
    narrow = torch.as_tensor(x).to(dtype)
    if not narrow.isfinite().all():
        pytest.skip("the samples do not fit into the dtype")
    other = torch.as_tensor(y).to(dtype)
    exact = similarity(measure, narrow.double(), other.double())
    found = similarity(measure, narrow, other)
    assert np.isnan(found) or found == pytest.approx(exact, abs=2e-3)
    if count == 1 and distance <= 1e5 and name != "ridge":  # Ridge's penalty is that of the far sample.
        assert not np.isnan(found)


@pytest.mark.parametrize("name", ["mutual_knn", "rsa", "ridge"])
@pytest.mark.parametrize(("n", "width"), [(8, 40), (16, 400), (64, 400)])
def test_wide_layers_in_float32_are_defined_and_have_the_digits(name, n, width):
    """With more features than samples, all distances are similar, and hat matrices are nearly the identity."""
    measure = MEASURES[name][0]
    for seed in range(10):
        random = np.random.default_rng(seed)
        x = random.normal(size=(n, width)) + 3
        y = x + random.normal(size=(n, width))
        found = similarity(measure, *(torch.as_tensor(z).float() for z in (x, y)))
        assert found == pytest.approx(similarity(measure, x, y), abs=3e-3)  # One of 64 neighbours, at most.


@pytest.mark.parametrize("d", [20, 2000])
@pytest.mark.parametrize("decay", [0.0, 2.0])
def test_ridge_of_ordinary_layers_is_defined_in_float32(d, decay):
    random = np.random.default_rng(4)
    x = random.normal(size=(128, d)) @ random.normal(size=(d, d)) * (1 + np.arange(d)) ** -decay
    y = x + x.std(0) * random.normal(size=x.shape)
    x, y = (torch.as_tensor(np.maximum(z, 0) + 1) for z in (x, y))
    assert similarity(Ridge(), x.float(), y.float()) == pytest.approx(similarity(Ridge(), x, y), abs=1e-4)


@pytest.mark.parametrize("name", ["mutual_knn", "rsa"])
def test_layers_where_most_samples_are_copies_are_undefined_and_the_warning_says_so(name):
    """Copies, as of dead ReLUs, and samples that are far away have distances of zero. They cannot be told apart."""
    x, y = torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(0))
    metric = METRICS[name](1)
    x[:20] = 0
    metric.update([x], [y])
    assert metric.compute().isfinite()
    x[:50] = 0
    metric.reset()
    metric.update([x], [y])
    with pytest.warns(UserWarning, match="or where most samples are identical: 0"):
        assert metric.compute().isnan()


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_computes_in_float64_what_float32_cannot(name):
    random = np.random.default_rng(3)
    x = random.normal(size=(256, 4))
    y = random.normal(size=(256, 4)) + x
    x[:40] += 3e4
    x, y = (torch.as_tensor(each).float() for each in (x, y))
    metric = METRICS[name](1)
    metric.update([x], [y])
    exact = similarity(MEASURES[name][0], x.double(), y.double())
    assert metric.compute().item() == pytest.approx(exact, abs=1e-3)  # The other side stays in float32.


def test_names_and_their_order():
    assert list(check_measures("cka")) == ["linear"]
    assert list(check_measures(["cka", "rsa"])) == ["cka", "rsa"]
    assert list(check_measures(["rsa", "cka"], ["linear", "rbf"])) == ["rsa", "linear", "rbf"]
    several = check_measures([MutualKNN(), MutualKNN(0.2), "ridge", Ridge(0.5)])
    assert list(several) == ["mutual_knn", "mutual_knn-2", "ridge", "ridge-2"]
    assert [each.name for each in several.values()] == ["mutual_knn", "mutual_knn(0.2)", "ridge", "ridge(0.5)"]
    assert list(check_measures({"ridge", "cka", "mutual_knn"})) == ["cka", "mutual_knn", "ridge"]
    assert check_measures("cka", RBF(0.2), unbiased=False) == {"rbf": CKA(RBF(0.2), unbiased=False)}


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: check_measures("knn"), ValueError, r"unknown measure 'knn'; expected one of \['cka', 'mutual_knn'"),
        (lambda: check_measures(3), TypeError, "a measure must be a name, MutualKNN"),
        (lambda: check_measures([]), ValueError, "measures is empty"),
        (lambda: check_measures(["rsa", RSA()]), ValueError, "measure 'RSA' is given twice"),
        (lambda: check_measures("rsa", "rbf"), ValueError, "kernel= and unbiased= belong to the measure 'cka'"),
        (lambda: check_measures("rsa", unbiased=False), ValueError, "kernel= and unbiased= belong"),
        (lambda: MutualKNN(1.0), ValueError, "MutualKNN: neighbors must be between 0 and 1, but is 1"),
        (lambda: MutualKNN(5), ValueError, "between 0 and 1, but is 5"),
        (lambda: MutualKNN("5"), TypeError, "neighbors must be a number, but is a str"),
        (lambda: Ridge(0.0), ValueError, "Ridge: alpha must be between 0 and 1, but is 0"),
        (lambda: MutualKNN(0.9).check(8), ValueError, "makes 7 of the 7 other samples"),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()
