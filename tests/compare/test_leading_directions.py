"""CKA without leading directions and within groups, against a full decomposition of each batch's Gram matrices."""

import naive
import numpy as np
import pytest
import torch
from lightning_cka.compare import leading_directions
from lightning_cka.compare.leading_directions import LeadingDirections
from lightning_cka.compare.partners import Partners, partners
from lightning_cka.hsic.first_directions import MAX_SAMPLES, FirstDirections
from lightning_cka.hsic.stack import pack_features

CPU = torch.device("cpu")


def pair_of_features(kind, n=48, batches=5, d=12):
    """Features with a common direction or with a group apart, in batches."""
    made = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, batches * n, d, generator=made, dtype=torch.float64)
    y = y + 0.7 * x
    common = torch.randn(batches * n, 1, generator=made, dtype=torch.float64)
    if kind == "group":
        common = (torch.arange(batches * n) % 6 == 0).double()[:, None] * 3
    u, v = torch.randn(2, 1, d, generator=made, dtype=torch.float64)
    return (x + 2 * common * u).split(n), (y + 2 * common * v).split(n)


def statistics(xs, ys, unbiased=True, dtype=torch.float64):
    found = LeadingDirections(partners(["a"], ["a"]), CPU, unbiased=unbiased)
    start = 0
    for index, (x, y) in enumerate(zip(xs, ys, strict=True)):
        packed = [pack_features([z.to(dtype)]) for z in (x, y)]
        found.add(index, *packed, tuple(range(start, start + len(x))))
        start += len(x)
    return found.result(distributed=False)[0]


def gram(x):
    return naive.fast_gram(np.asarray(x - x.mean(0)))


def ratio(products):
    c, a, b = np.sum(products, 0)
    return c / np.sqrt(a * b)


def products(k, ell, unbiased):
    n = len(k)
    hsic, weight = (naive.unbiased_hsic, n * (n - 3)) if unbiased else (naive.biased_hsic, (n - 1) ** 2)
    return [weight * hsic(*each) for each in ((k, ell), (k, k), (ell, ell))]


def jackknife(whole, part):
    left = [ratio(np.delete(whole, i, 0)) - ratio(np.delete(part, i, 0)) for i in range(len(whole))]
    value = ratio(whole) - ratio(part)
    return np.sqrt((len(left) - 1) / len(left) * np.sum((np.array(left) - value) ** 2))


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cka_without_the_leading_directions_equals_a_full_decomposition(unbiased, dtype):
    xs, ys = pair_of_features("direction")
    whole, part, cosines = [], [], []
    for x, y in zip(xs, ys, strict=True):
        grams, rests, vectors = [gram(x), gram(y)], [], []
        for k in grams:
            values, found = np.linalg.eigh(k)
            rests.append(k - values[-1] * np.outer(found[:, -1], found[:, -1]))
            vectors.append(found[:, -1])
        whole.append(products(*grams, unbiased))
        part.append(products(*rests, unbiased))
        cosines.append((vectors[0] @ vectors[1]) ** 2)
    found = statistics(xs, ys, unbiased, dtype)
    tolerance = 1e-5 if dtype == torch.float64 else 1e-3
    assert found.without_directions.cka == pytest.approx(ratio(whole), abs=1e-5)
    assert found.without_directions.remaining == pytest.approx(ratio(part), abs=tolerance)
    assert found.without_directions.standard_error == pytest.approx(jackknife(whole, part), rel=0.01)
    assert found.agreement == pytest.approx(np.mean(cosines), abs=tolerance)
    assert found.without_directions.remaining < found.without_directions.cka - 0.3


@pytest.mark.parametrize("unbiased", [True, False])
def test_cka_within_groups_equals_centering_the_features_in_each_group(unbiased):
    xs, ys = pair_of_features("group")
    found = statistics(xs, ys, unbiased)
    assert min(found.separation) > 0.9
    assert found.group_sizes == (8, 8)
    assert set(found.members[0]) <= set(range(0, 240, 6))
    whole, part = [], []
    for x, y in zip(xs, ys, strict=True):
        whole.append(products(gram(x), gram(y), unbiased))
        for z in (x, y):
            for rows in (torch.arange(48) % 6 == 0, torch.arange(48) % 6 != 0):
                z[rows] -= z[rows].mean(0)
        part.append(products(gram(x), gram(y), unbiased))
    for change in found.within_groups:
        assert change.cka == pytest.approx(ratio(whole), abs=1e-9)
        assert change.remaining == pytest.approx(ratio(part), abs=1e-7)
        assert change.standard_error == pytest.approx(jackknife(whole, part), rel=1e-6)


def test_the_ends_are_the_samples_with_the_smallest_and_largest_coordinates():
    xs, ys = pair_of_features("direction")
    _, vectors = np.linalg.eigh(gram(xs[0]))
    order = np.argsort(vectors[:, -1]).tolist()
    found = statistics(xs, ys).ends
    assert {found[0], found[1]} == {tuple(order[:3]), tuple(order[:-4:-1])}


def test_small_batches_and_many_samples():
    xs, ys = pair_of_features("direction", n=15)
    assert np.isnan(statistics(xs, ys).without_directions.cka)
    xs, ys = pair_of_features("direction", n=3 * MAX_SAMPLES)
    part = [[z[:MAX_SAMPLES] for z in zs] for zs in (xs, ys)]
    assert statistics(xs, ys).without_directions == pytest.approx(statistics(*part).without_directions, abs=1e-6)
    one = statistics(xs[:1], ys[:1]).without_directions
    assert one.remaining < one.cka
    assert np.isnan(one.standard_error)


def test_a_direction_in_a_quarter_of_the_batches_does_not_count():
    xs, ys = (list(zs) for zs in pair_of_features("direction", batches=4))
    noise = torch.randn(2, 48, 12, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    for i in range(2):
        xs[i], ys[i] = noise
    assert np.isnan(statistics(xs, ys).without_directions.remaining)


def test_a_model_is_compared_with_its_next_layer():
    xs, ys = pair_of_features("direction")
    found = LeadingDirections(Partners([0, 1], [1, 0]), CPU, unbiased=True)
    for index, (x, y) in enumerate(zip(xs, ys, strict=True)):
        found.add(index, pack_features([x, y]), None, tuple(range(48)))
    one, other = found.result(distributed=False)
    assert one.without_directions == pytest.approx(statistics(xs, ys).without_directions, abs=1e-9)
    assert other.without_directions == pytest.approx(one.without_directions, abs=1e-9)


@pytest.mark.parametrize("sizes", [[48] * 5, [48, 48, 40, 40, 17], [200, 200, 130, 48, 48]])
def test_batches_that_are_looked_at_together_have_the_same_statistics_as_alone(monkeypatch, sizes):
    made = torch.Generator().manual_seed(0)
    layers = ["a", "b", "c"]
    xs, ys = (
        [[torch.randn(n, 5, generator=made) + 2 * torch.randn(n, 1, generator=made) for _ in layers] for n in sizes]
        for _ in range(2)
    )
    found = {}
    for most in (1, leading_directions._MAX_TOGETHER):
        monkeypatch.setattr(leading_directions, "_MAX_TOGETHER", most)
        pairs = [LeadingDirections(partners(layers, others), CPU, unbiased=True) for others in (layers, layers, None)]
        for index, n in enumerate(sizes):
            samples, kept = tuple(range(1000 * index, 1000 * index + n)), FirstDirections()
            x, y = (pack_features(each[index]) for each in (xs, ys))
            pairs[0].add(index, x, y, samples, kept)
            pairs[1].add(index, x, x, samples, kept, kept)
            pairs[2].add(index, x, None, samples, kept)
            for grams in (x, y):  # The next batch overwrites its matrices.
                for part in grams:
                    part.fill_(torch.nan)
        found[most] = [statistics for pair in pairs for statistics in pair.result(distributed=False)]
    alone, together = found.values()
    for one, other in zip(alone, together, strict=True):
        assert other.agreement == pytest.approx(one.agreement, abs=1e-9, nan_ok=True)
        assert other.without_directions == pytest.approx(one.without_directions, abs=1e-9, nan_ok=True)
        assert other.within_groups[0] == pytest.approx(one.within_groups[0], abs=1e-9, nan_ok=True)
        assert other.neighbors == pytest.approx(one.neighbors, abs=1e-9)
        assert (other.ends, other.members, other.group_sizes) == (one.ends, one.members, one.group_sizes)
    assert any(one.agreement == pytest.approx(1) for one in alone)
