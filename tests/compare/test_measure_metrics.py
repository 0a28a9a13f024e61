"""The metrics beside `MinibatchCKA` as torchmetrics."""

import numpy as np
import pytest
import torch
from conftest import Net
from lightning_cka import MinibatchCKA, MinibatchMutualKNN, MinibatchRidge, MinibatchRSA
from measure_cases import NAIVE
from torchmetrics import MetricCollection

METRICS = {
    "cka": MinibatchCKA,
    "mutual_knn": MinibatchMutualKNN,
    "rsa": MinibatchRSA,
    "ridge": MinibatchRidge,
}
over_metrics = pytest.mark.parametrize("name", METRICS)


def batches(sizes=(16, 16, 20), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    xs = [[torch.randn(n, d, generator=generator, dtype=torch.float64) for d in (6, 4)] for n in sizes]
    ys = [[x + 0.5 * torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in each] for each in xs]
    return [[z.to(dtype) for z in each] for each in xs], [[z.to(dtype) for z in each] for each in ys]


def filled(metric, xs, ys):
    for x, y in zip(xs, ys, strict=True):
        metric.update(x, y)
    return metric


@over_metrics
def test_forward_gives_the_batch_and_compute_all_batches(name):
    xs, ys = batches()
    metric = METRICS[name](2)
    for x, y in zip(xs, ys, strict=True):
        np.testing.assert_allclose(metric(x, y), NAIVE[name]([x], [y]), rtol=1e-8)
    np.testing.assert_allclose(metric.compute(), NAIVE[name](xs, ys), rtol=1e-8)
    assert metric.result().measure == name
    metric.reset()
    assert metric.num_batches == 0
    filled(metric, xs[:1], ys[:1])
    np.testing.assert_allclose(metric.compute(), NAIVE[name](xs[:1], ys[:1]), rtol=1e-8)


@over_metrics
def test_numpy_and_batches_of_four_and_five_samples(name):
    xs, ys = batches(sizes=(4, 5, 3, 4))
    metric = METRICS[name](2)
    for x, y in zip(xs, ys, strict=True):
        metric.update([z.numpy() for z in x], [z.numpy() for z in y])
    kept = [0, 1, 3]  # Three samples are too few.
    expected = NAIVE[name]([xs[i] for i in kept], [ys[i] for i in kept])
    np.testing.assert_allclose(metric.compute(), expected, rtol=1e-8)
    assert (int(metric.num_batches), int(metric.num_skipped)) == (3, 1)


@over_metrics
def test_conversions_of_the_module_and_its_state_keep_the_sums(name):
    xs, ys = batches()
    net = Net()
    net.metric = METRICS[name](2)
    expected = filled(net.metric, xs, ys).compute()
    net.to(torch.bfloat16)
    assert net.metric.pair_sum.dtype == torch.float64
    assert torch.equal(net.metric.compute(), expected)
    net.metric.persistent(True)
    copy = METRICS[name](2)
    copy.persistent(True)
    state = net.metric.state_dict()
    copy.load_state_dict(state)
    copy._computed = None
    assert torch.equal(copy.matrix(), expected)


@over_metrics
def test_features_in_half_precision(name):
    xs, ys = batches(dtype=torch.bfloat16)
    found = filled(METRICS[name](2), xs, ys).compute()
    wide = [[[z.double() for z in each] for each in side] for side in (xs, ys)]
    np.testing.assert_allclose(found, NAIVE[name](*wide), atol=5e-3)


def test_a_collection_keeps_all_metrics_apart():
    """Metrics with equal states would be merged; here the first batch is skipped, so that all states are zero."""
    metrics = {name: metric(2) for name, metric in METRICS.items()}
    metrics |= {"more": MinibatchMutualKNN(2, neighbors=0.3), "uncorrected": MinibatchMutualKNN(2, corrected=False)}
    metrics |= {"penalty": MinibatchRidge(2, alpha=0.3)}
    collection = MetricCollection(metrics)
    xs, ys = batches(sizes=(3, 16, 20))
    for x, y in zip(xs, ys, strict=True):
        collection.update(x, y)
    found = collection.compute()
    assert len(collection.compute_groups) == len(metrics)
    for name in METRICS:
        np.testing.assert_allclose(found[name], NAIVE[name](xs[1:], ys[1:]), rtol=1e-8)
    assert len({round(float(value[0, 0]), 9) for value in found.values()}) == len(metrics)


@over_metrics
def test_a_standard_error(name):
    xs, ys = batches(sizes=(20,) * 6)
    value, error = filled(METRICS[name](2, return_standard_error=True), xs, ys).compute()
    assert torch.equal(value, filled(METRICS[name](2), xs, ys).compute())
    assert (error > 0).all()
    assert (error < 0.5).all()


@over_metrics
def test_merged_sums_of_two_processes_are_those_of_one(name):
    """torchmetrics adds the states of processes, as `merge_state` does."""
    xs, ys = batches(sizes=(16, 20, 16, 12))
    one, other = filled(METRICS[name](2), xs[::2], ys[::2]), filled(METRICS[name](2), xs[1::2], ys[1::2])
    one.merge_state(other)
    np.testing.assert_allclose(one.compute(), NAIVE[name](xs, ys), rtol=1e-8)
