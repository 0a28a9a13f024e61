"""`MinibatchCKA` against the naive reference, and as a metric of torchmetrics."""

import copy
import pickle

import naive
import pytest
import torch
from lightning_cka import MinibatchCKA
from lightning_cka.hsic.packed import pack_stack
from metric_batches import batches, filled
from torchmetrics import MetricCollection


@pytest.mark.parametrize("unbiased", [True, False])
def test_two_models_match_naive(unbiased):
    data = batches(sizes=(32, 32) if not unbiased else (32, 17, 4))
    xs, ys = zip(*data, strict=True)
    hsic = naive.unbiased_hsic if unbiased else naive.biased_hsic
    matrix = filled(data, unbiased=unbiased).compute()
    assert matrix.shape == (3, 2)
    assert matrix.dtype == torch.float64
    assert abs(matrix.numpy() - naive.minibatch_cka(xs, ys, hsic)).max() < 1e-10


@pytest.mark.parametrize("ratio", [1, 10, 100, 1000])
def test_float32_matches_naive(ratio):
    data = batches(dtype=torch.float32, ratio=ratio)
    xs, ys = zip(*data, strict=True)
    assert abs(filled(data).compute().numpy() - naive.minibatch_cka(xs, ys)).max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features(dtype):
    data = batches(dtype=dtype)
    xs, ys = zip(*[([t.double() for t in x], [t.double() for t in y]) for x, y in data], strict=True)
    assert abs(filled(data).compute().numpy() - naive.minibatch_cka(xs, ys)).max() < 1e-5


def test_mixed_precision_between_layers():
    x, y = batches(sizes=(32,))[0]
    metric = filled([([x[0].float(), x[1], x[2].float()], y)])
    assert abs(metric.compute() - filled([(x, y)]).compute()).max() < 1e-6


def test_cka_within_one_model_is_symmetric_with_a_diagonal_of_one():
    metric = MinibatchCKA(["a", "b", "c"])
    for x, _ in batches(dtype=torch.float32, ratio=30):
        metric.update(x)
    matrix = metric.compute()
    assert torch.equal(matrix.diagonal(), torch.ones(3, dtype=torch.float64))
    assert torch.allclose(matrix, matrix.T, atol=1e-15)


def test_precomputed_gram_matrices_centered_or_not():
    metric = MinibatchCKA(3, 2, kernel="precomputed")
    for x, y in (data := batches()):
        metric.update(*[[z.flatten(1) @ z.flatten(1).T for z in side] for side in (x, y)])
    assert torch.allclose(metric.compute(), filled(data).compute(), atol=1e-10)


def test_packed_grams_equal_features():
    metric = MinibatchCKA(3, 2)
    for x, y in (data := batches()):
        metric.update(*[pack_stack(torch.stack([z.flatten(1) @ z.flatten(1).T for z in side])) for side in (x, y)])
    assert torch.allclose(metric.compute(), filled(data).compute(), atol=1e-10)


def test_batches_of_fewer_than_four_samples_are_skipped_and_counted():
    data = batches(sizes=(32, 3, 16, 2))
    metric = filled(data)
    assert torch.equal(metric.compute(), filled([data[0], data[2]]).compute())
    assert (metric.num_skipped, metric.num_batches, metric.num_samples) == (2, 2, 48)


def test_forward_returns_the_batch_value_and_accumulates():
    data = batches()
    metric = MinibatchCKA(3, 2)
    values = [metric(x, y) for x, y in data]
    for value, batch in zip(values, data, strict=True):
        assert torch.equal(value, filled([batch]).compute())
    assert torch.allclose(metric.compute(), filled(data).compute(), atol=1e-15)


def test_life_cycle():
    data = batches()
    metric = filled(data, return_standard_error=True)
    expected = metric.compute()
    for other in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert all(torch.equal(a, b) for a, b in zip(other.compute(), expected, strict=True))
    metric.persistent(True)
    restored = MinibatchCKA(3, 2, return_standard_error=True)
    restored.load_state_dict(metric.state_dict())
    restored._update_count = 1
    assert torch.equal(restored.compute()[0], expected[0])
    metric.reset()
    assert metric.pair_sum.abs().sum() == 0
    metric.update(*data[0])
    assert torch.equal(metric.compute()[0], filled(data[:1]).compute())


def test_in_a_metric_collection():
    collection = MetricCollection({"unbiased": MinibatchCKA(3, 2), "biased": MinibatchCKA(3, 2, unbiased=False)})
    for x, y in (data := batches(sizes=(32, 32))):
        collection.update(x, y)
    values = collection.compute()
    assert torch.equal(values["unbiased"], filled(data).compute())
    assert (values["biased"] > values["unbiased"]).all()


def test_a_metric_collection_does_not_merge_estimators_that_begin_with_a_skipped_batch():
    collection = MetricCollection({"unbiased": MinibatchCKA(3, 2), "biased": MinibatchCKA(3, 2, unbiased=False)})
    for x, y in (data := batches(sizes=(3, 32))):
        collection.update(x, y)
    assert torch.equal(collection.compute()["biased"], filled(data, unbiased=False).compute())
    assert torch.equal(collection.compute()["unbiased"], filled(data).compute())


def test_result_has_the_values_of_compute():
    data = batches()
    metric = filled(data, return_standard_error=True)
    result = metric.result(model_name="live", epoch=3)
    matrix, error = metric.compute()
    assert torch.equal(result.matrix, matrix)
    assert torch.equal(result.standard_error, error)
    assert (result.model_name, result.epoch, result.kernel, result.unbiased) == ("live", 3, "linear", True)
    assert (result.num_batches, result.num_samples) == (len(data), sum(len(x[0]) for x, _ in data))
    assert 1 < result.effective_batches <= len(data)
    empty = MinibatchCKA(2)
    assert empty.result().effective_batches is None
    empty.update([torch.zeros(8, 2), torch.randn(8, 2)])
    with pytest.warns(UserWarning, match="no variance: 0"):
        empty.result()


def test_plot_gives_a_figure_and_axes():
    metric = filled(batches(), return_standard_error=True)
    figure, ax = metric.plot()
    assert ax.get_images()[0].get_array().shape == (3, 2)
    other, same = metric.plot(metric.compute(), ax=figure.add_subplot())
    assert other is figure
    assert same is not ax
